"""Quantizers of activations: their hooks, their ranges, and the biases that integer sums need."""
