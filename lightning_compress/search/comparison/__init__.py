"""Runs side by side: their reports, sizes, latencies and metrics, and the Pareto front."""
