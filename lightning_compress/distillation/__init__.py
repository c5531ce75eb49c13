"""Distillation: a student learns from a teacher while it trains."""

from lightning_compress.distillation import losses
from lightning_compress.distillation.caches import Cache, cache_outputs
from lightning_compress.distillation.callback import DistillationCallback
from lightning_compress.distillation.initialization import initialize
from lightning_compress.distillation.module import DistillationModule, from_checkpoint
from lightning_compress.distillation.regressors import LeastSquares
from lightning_compress.distillation.teachers import EMA, Ensemble, Teacher
from lightning_compress.distillation.terms import Item, Term

__all__ = [
    "EMA",
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
