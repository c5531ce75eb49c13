"""Averages: a student that is taught by the running mean of its own weights."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.arguments import check_decay
from lightning_compress.distillation.teachers.modules import Live
from lightning_compress.distillation.teachers.protocols import Convert
from lightning_compress.processes import is_sharded

__all__ = ["EMA"]


class EMA(Live):
    """Self-distillation: the exponential moving average of the student itself.

    ``teacher = decay * teacher + (1 - decay) * student`` after every optimizer step. Buffers are copied; hooks, such as
    those of activation quantizers, are not. A checkpoint holds the average, since a resumed run needs it.

    Args:
        decay: decay of the running mean, in [0, 1).

    Raises:
        TypeError: ``decay`` is not a number.
        ValueError: ``decay`` is out of its range; in the first step, FSDP2 shards the student.

    >>> EMA(decay=0.99)
    EMA(decay=0.99)

    Paper: Tarvainen and Valpola, "Mean teachers are better role models", https://arxiv.org/abs/1703.01780 (2017).
    """

    def __init__(self, decay: float = 0.999) -> None:
        check_decay(decay=decay)
        super().__init__(nn.Module())
        self.decay = decay
        self._name = ""
        self._step = 0
        self._pending: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"EMA(decay={self.decay})"

    def __deepcopy__(self, memo: dict[int, Any]) -> EMA:
        return EMA(self.decay)  # the average belongs to one student; the copy follows another

    def __reduce__(self) -> tuple[type[EMA], tuple[float]]:
        return EMA, (self.decay,)

    def begin(self, student: nn.Module, network: str, convert: Convert) -> None:
        if is_sharded(student):
            raise ValueError(
                "need a student with whole parameters to teach it by its average, got one that FSDP2 shards: train it "
                "on one device or with strategy='ddp', or give a trained module as its teacher"
            )
        # The checkpoint of a step that removed channels holds the average of before: it follows with the next step.
        self._copy(student, network, self._pending.get("module", {}))
        self._device = None  # the copy already has the precision of the run
        self._step, self._pending = self._pending.get("step", 0), {}

    @torch.no_grad()
    def follow(self, student: nn.Module, step: int) -> None:
        if step <= self._step:
            return
        self._step = step
        if _shapes(student) != _shapes(self.module):  # channels have been removed
            self._copy(student, self._name, self.module.state_dict())
        averages: list[Tensor] = list(self.module.parameters())
        weights: list[Tensor] = list(student.parameters())
        if averages:
            torch._foreach_lerp_(averages, weights, 1 - self.decay)
        for average, buffer in zip(self.module.buffers(), student.buffers(), strict=True):
            average.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        average = self.module.state_dict()
        return {"module": average, "step": self._step} if average else {}  # empty before the first fit

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._pending = state

    def _copy(self, student: nn.Module, network: str, averages: Mapping[str, Any]) -> None:
        """Copy the student; those of its tensors that have an average of their shape become that average."""
        self.module = deepcopy(student).requires_grad_(False).eval()
        for module in self.module.modules():  # hooks of the student are no part of its average
            module._forward_pre_hooks.clear()
            module._forward_hooks.clear()
        self._name, self._network = network, self.module.get_submodule(network)
        shapes = {name: getattr(value, "shape", None) for name, value in self.module.state_dict().items()}
        kept = {
            name: average
            for name, average in averages.items()
            if name in shapes and shapes[name] == getattr(average, "shape", None)
        }
        self.module.load_state_dict(kept, strict=False)


def _shapes(module: nn.Module) -> list[torch.Size]:
    return [tensor.shape for tensor in chain(module.parameters(), module.buffers())]
