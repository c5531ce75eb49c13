"""Targets: the parameters of a model that a method compresses, and the reasons to leave the others alone."""

from lightning_compress.targets.layers import is_layer, is_linear, is_transposed
from lightning_compress.targets.selection import FROZEN, Selection, Target, check_alike, is_named, select

__all__ = [
    "FROZEN",
    "Selection",
    "Target",
    "check_alike",
    "is_layer",
    "is_linear",
    "is_named",
    "is_transposed",
    "select",
]
