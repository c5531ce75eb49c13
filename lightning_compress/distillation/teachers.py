"""Teachers: who answers for the inputs that the student has just seen.

A teacher stands outside the student's module tree, so it is never in a state dict, a checkpoint, an
optimizer, a summary, an averaged copy or what DDP synchronises, and nothing can put it into train mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lightning_compress.distillation.features import Call, Recorder, match, tensor

__all__ = ["EMA", "Ensemble", "Live", "Teacher"]

Convert = Callable[[nn.Module], nn.Module]


class Teacher(Protocol):
    """What the objective asks of a teacher. Any module becomes one as ``Live(module)``."""

    def begin(self, student: nn.Module, network: str, convert: Convert) -> None:
        """Get ready for a fit; ``convert`` sets a module to the precision of the run."""

    def follow(self, student: nn.Module, step: int) -> None:
        """The student has taken ``step`` optimizer steps."""

    def layers(self, pattern: str) -> list[str]:
        """The names that match a shell pattern; an error that lists all if none does."""
        ...

    def answer(self, call: Call, layers: Sequence[str]) -> Mapping[str, Tensor]:
        """What the named layers put out for the inputs of ``call``."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; empty for a teacher that does not change."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state."""


class Live:
    """A trained module that runs on every batch, in eval and inference mode, in the precision of the run.

    Args:
        module: any module that takes the inputs of the student's network. It is frozen, not copied.

    >>> x = torch.ones(1, 2)
    >>> Live(nn.Identity()).answer(Call((x,), {}, {"": x}), [""])
    {'': tensor([[1., 1.]])}
    """

    def __init__(self, module: nn.Module) -> None:
        self.module: nn.Module = getattr(module, "_orig_mod", module)  # of what torch.compile(module) gave
        self._network = module
        self._device: torch.device | None = None
        self._convert: Convert = _unchanged

    def __deepcopy__(self, memo: dict[int, Any]) -> Live:
        return self  # copies of a student share its teacher

    def begin(self, student: nn.Module, network: str, convert: Convert) -> None:
        own = {id(parameter) for parameter in student.parameters()}
        if any(id(parameter) in own for parameter in self.module.parameters()):
            raise ValueError(
                "need a teacher that shares no parameter with the student, got one that does: "
                "use EMA() for self-distillation, or copy.deepcopy(student)"
            )
        self.module.requires_grad_(False).eval()
        self._device, self._convert = None, convert

    def follow(self, student: nn.Module, step: int) -> None:
        pass

    def layers(self, pattern: str) -> list[str]:
        return match([name for name, _ in self.module.named_modules()], pattern, "teacher")

    def answer(self, call: Call, layers: Sequence[str]) -> Mapping[str, Tensor]:
        self._place(call)
        with torch.inference_mode():
            outputs = self._outputs(call, [name for name in layers if name])
        # Autograd cannot save inference tensors; their clones are ordinary.
        answer = {name: outputs[name].clone() for name in layers}
        _check_finite(answer)
        return answer

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def _outputs(self, call: Call, inner: Sequence[str]) -> Mapping[str, Tensor]:
        """What the inner layers and the network put out; without inner layers no hook stands in a compiler's way."""
        if not inner:
            return {"": tensor(self._network(*call.args, **call.kwargs))}
        network = getattr(self._network, "_orig_mod", self._network)  # compiled code may run past the hooks
        recorder = Recorder(network, {name: self.module.get_submodule(name) for name in inner})
        try:
            with recorder.recording() as calls:
                network(*call.args, **call.kwargs)
        finally:
            recorder.remove()
        outputs = calls[-1].outputs if calls else {}
        if missing := [name for name in inner if name not in outputs]:
            raise ValueError(f"need teacher layers that run on the student's inputs, uncompiled, got none of {missing}")
        return outputs

    def _place(self, call: Call) -> None:
        """Late, because only a running step knows its device: in a tuner, in a spawned process."""
        device = next(iter(call.outputs.values())).device
        if device != self._device:
            self._convert(self.module.to(device)).eval()
            self._device = device


class EMA(Live):
    """Self-distillation: the exponential moving average of the student itself.

    ``teacher = decay * teacher + (1 - decay) * student`` after every optimizer step; buffers are copied, hooks
    (quantizers of activations) are not. Its weights are training state and so the one thing of a teacher that a
    checkpoint holds, apart from the student's weights.

    Args:
        decay: in [0, 1).

    Raises:
        ValueError: ``decay`` is out of its range.

    >>> EMA(decay=0.99).decay
    0.99

    Paper: Tarvainen and Valpola, "Mean teachers are better role models", https://arxiv.org/abs/1703.01780
    (2017).
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"need 0 <= decay < 1, got decay={decay}")
        super().__init__(nn.Module())
        self.decay = decay
        self._name = ""
        self._step = 0
        self._pending: dict[str, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> EMA:
        return EMA(self.decay)  # the average is of one student; a copy follows another

    def begin(self, student: nn.Module, network: str, convert: Convert) -> None:
        self.module, self._step = nn.Module(), 0  # of an earlier fit nothing is left
        self._copy(student, network)
        self._device = None  # the copy is in the run's precision already
        if self._pending:
            self.module.load_state_dict(self._pending["module"])
            self._step, self._pending = self._pending["step"], {}

    @torch.no_grad()
    def follow(self, student: nn.Module, step: int) -> None:
        if step <= self._step:
            return
        self._step = step
        if _shapes(student) != _shapes(self.module):  # channels have been removed
            self._copy(student, self._name)
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

    @torch.no_grad()
    def _copy(self, student: nn.Module, network: str) -> None:
        """Take the student's structure; averages of parameters that have kept their shape go on."""
        averages = dict(self.module.named_parameters())
        self.module = deepcopy(student).requires_grad_(False).eval()
        for module in self.module.modules():  # what else is attached to the student is no part of its average
            module._forward_pre_hooks.clear()
            module._forward_hooks.clear()
        self._name, self._network = network, self.module.get_submodule(network)
        for name, parameter in self.module.named_parameters():
            if name in averages and averages[name].shape == parameter.shape:
                parameter.copy_(averages[name])


class Ensemble(nn.Module):
    """Several teachers as one: the mean of their logits.

    Args:
        members: modules that take the same inputs and put out the same shape. Their layers are named
            ``members.0.layer3``.

    Raises:
        ValueError: there is no member.

    >>> Ensemble([nn.Identity(), nn.ReLU()])(torch.tensor([-2.0, 2.0]))
    tensor([-1.,  2.])
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("need at least one member of the ensemble, got none")
        self.members = nn.ModuleList(members)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Mean over the members of ``member(*args, **kwargs)``."""
        return torch.stack([tensor(member(*args, **kwargs)) for member in self.members]).mean(0)


def _shapes(module: nn.Module) -> list[torch.Size]:
    return [tensor.shape for tensor in chain(module.parameters(), module.buffers())]


def _unchanged(module: nn.Module) -> nn.Module:
    return module


def _check_finite(answer: Mapping[str, Tensor]) -> None:
    for name, output in answer.items():
        if not bool(output.isfinite().all()):
            layer = f"layer {name!r}" if name else "output"
            raise ValueError(f"need a teacher that answers with finite numbers, got nan or inf in its {layer}")
