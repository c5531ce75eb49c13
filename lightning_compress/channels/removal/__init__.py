"""Removal of channels: narrower tensors, hollow layers, and the shapes that a checkpoint carries."""
