"""Callbacks of this package under the tuner of Ray."""
