"""Channels that must be removed together: the dependency graph, residual branches, and the trial of each group."""
