"""Runs and exports that are killed at random instants; ``python -m benchmarks.kills``."""
