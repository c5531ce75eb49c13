"""Lowering: a copy of a trained module that states in its operations which values are integers."""
