"""Bases: a student with adapters that is taught by itself without them."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_compress.adapters import additive_paths
from lightning_compress.adapters.views import base_view, show_
from lightning_compress.distillation.features import NetworkCall
from lightning_compress.distillation.teachers.modules import Live
from lightning_compress.distillation.teachers.protocols import Convert
from lightning_compress.training.callback import original_weights

__all__ = ["Base"]


class Base(Live):
    """The base of a student with adapters: the model that they adapt, with its weights as they came into ``fit``.

    It takes no memory: it computes with the latents of the frozen weights, without adapters and quantizers, in
    evaluation mode. Parameters that are trained beside adapters, such as a new head, are those of the student; layers
    that PEFT trains in copies (``modules_to_save``) are the original ones.

    Raises:
        ValueError: in the first step, the student has no adapters.

    >>> Base()
    Base()
    """

    def __init__(self) -> None:
        super().__init__(nn.Module())
        self._student: Any = None

    def __repr__(self) -> str:
        return "Base()"

    def __deepcopy__(self, memo: dict[int, Any]) -> Base:
        return Base()  # the view belongs to one student; the copy views another

    def __reduce__(self) -> tuple[type[Base], tuple[()]]:
        return Base, ()

    def begin(self, student: nn.Module, network: str, convert: Convert) -> None:
        if not additive_paths(student):
            raise ValueError(
                "need a student with adapters to teach it by its base, got one without: give a trained module as its "
                "teacher, or EMA()"
            )
        self._student, self.module = student, base_view(student)
        self._network = self.module.get_submodule(network)

    def _place(self, call: NetworkCall) -> None:
        """Show the latents in place of compressed weights; the student has moved to its device already."""
        show_(self.module, self._student, original_weights(self._student.trainer))
