"""Distillation: a student learns from a teacher while it trains."""

from lightning_compress.distillation import losses
from lightning_compress.distillation.callback import DistillationCallback
from lightning_compress.distillation.features import OUTPUT, LeastSquares
from lightning_compress.distillation.initialization import initialize
from lightning_compress.distillation.module import DistillationModule
from lightning_compress.distillation.teachers import EMA, Base, Cache, Ensemble, Teacher, cache_outputs, from_checkpoint
from lightning_compress.distillation.terms import Item, Term

__all__ = [
    "EMA",
    "OUTPUT",
    "Base",
    "Cache",
    "DistillationCallback",
    "DistillationModule",
    "Ensemble",
    "Item",
    "LeastSquares",
    "Teacher",
    "Term",
    "cache_outputs",
    "from_checkpoint",
    "initialize",
    "losses",
]
