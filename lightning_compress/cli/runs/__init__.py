"""Runs: what a config, a folder or a file says, built."""
