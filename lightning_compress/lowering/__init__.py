"""Lowering: :func:`~.modules.lower` copies a trained module as one that computes in integers."""
