"""Quantizers of activations: where they sit, their ranges, and the biases that fit their integer sums."""
