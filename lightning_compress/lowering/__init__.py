"""Lowering: integer twins of trained modules."""
