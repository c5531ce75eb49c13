"""The command ``sweep``: its words, its config, and the process of each trial."""
