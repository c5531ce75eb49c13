"""Teachers: the networks whose outputs a student learns from.

A teacher stands outside the student's module tree. So it is never part of a state dict, a checkpoint, an optimizer, a
summary, an averaged copy or a DDP synchronization, and nothing can switch it to train mode.
"""

from lightning_compress.distillation.teachers.averages import EMA
from lightning_compress.distillation.teachers.bases import Base
from lightning_compress.distillation.teachers.caches import Cache, cache_outputs
from lightning_compress.distillation.teachers.checkpoints import from_checkpoint
from lightning_compress.distillation.teachers.modules import Ensemble, Live
from lightning_compress.distillation.teachers.protocols import Convert, Teacher

__all__ = ["EMA", "Base", "Cache", "Convert", "Ensemble", "Live", "Teacher", "cache_outputs", "from_checkpoint"]
