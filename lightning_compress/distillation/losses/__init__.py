"""Distillation losses: the distance between a student's outputs and its teacher's.

All losses share one signature, ``(student, teacher) -> scalar``; the gradient flows to the student. ``Decoupled`` takes
the labels as a third tensor. A loss without options is a function. A loss with options is a frozen dataclass whose
``__call__`` is that function: ``SoftTargets(temperature=2.0)`` in Python, ``class_path`` and ``init_args`` in YAML.
Half-precision inputs are computed in float32.

Logits have shape ``[..., classes]``: one row per sample, token or pixel. Features have shape
``[batch, channels, *positions]``, as those of a convolution, unless the loss says otherwise.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from lightning_compress.distillation.losses import features, logits, relations
from lightning_compress.distillation.losses.features import *
from lightning_compress.distillation.losses.logits import *
from lightning_compress.distillation.losses.relations import *

__all__ = ["Loss", *features.__all__, *logits.__all__, *relations.__all__]

# A loss returns a Tensor. The alias says Any: jsonargparse takes a callable that returns a class for a factory of it.
Loss: TypeAlias = Callable[..., Any]
