"""Measurements of a model: sizes, multiply-accumulates, latency, and the exported file in its runtimes."""
