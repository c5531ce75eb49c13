"""The end of a run: the model that all callbacks leave, and its metrics."""
