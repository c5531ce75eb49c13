"""Pruned, shared, coded and taught in one ``fit``: how small LeNet gets on Fashion-MNIST."""
