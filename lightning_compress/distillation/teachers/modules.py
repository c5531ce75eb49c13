"""Modules as teachers: one that runs on every batch, and the mean of several."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_compress.arguments import shown
from lightning_compress.distillation.features import OUTPUT, NetworkCall, Recorder, match, output_tensor
from lightning_compress.distillation.teachers.protocols import Convert
from lightning_compress.messages import listed

__all__ = ["Ensemble", "Live"]


class Live:
    """A trained module that runs on every batch, in eval and inference mode, in the precision of the run.

    Args:
        module: any module that takes the inputs of the student's network. It is frozen, not copied.

    >>> x = torch.ones(1, 2)
    >>> Live(nn.Identity()).answer(NetworkCall((x,), {}, {"": x}), [""])
    {'': tensor([[1., 1.]])}
    """

    def __init__(self, module: nn.Module) -> None:
        self.module: nn.Module = getattr(module, "_orig_mod", module)  # inside the result of torch.compile(module)
        self._network = module
        self._device: torch.device | None = None
        self._convert: Convert = _unchanged

    def __repr__(self) -> str:
        return f"{type(self.module).__name__}(...)"

    def __deepcopy__(self, memo: dict[int, Any]) -> Live:
        return self  # copies of a student have its teacher

    def check_apart(self, student: nn.Module) -> None:
        """Refuse a teacher that is the student, or that shares parameters with it: training would change it.

        Raises:
            ValueError: it does.
        """
        own = {key for parameter in student.parameters() for key in _memory(parameter)}
        shared = [name for name, parameter in self.module.named_parameters() if not own.isdisjoint(_memory(parameter))]
        if shared:
            got = "the student itself" if self.module is student else f"one that shares {listed(shared)}"
            raise ValueError(
                f"need a teacher without parameters of the student, got {got}: write EMA() for self-distillation, or "
                "give copy.deepcopy(student)"
            )

    def begin(self, student: nn.Module, network: str, convert: Convert) -> None:
        self.check_apart(student)
        self.module.requires_grad_(False).eval()
        self._device, self._convert = None, convert

    def follow(self, student: nn.Module, step: int) -> None:
        pass

    def layers(self, pattern: str) -> list[str]:
        return match([name for name, _ in self.module.named_modules()], pattern, "teacher")

    def answer(self, call: NetworkCall, layers: Sequence[str]) -> Mapping[str, Tensor]:
        self._place(call)
        with torch.inference_mode():
            outputs = self._outputs(call, [name for name in layers if name != OUTPUT])
        # Autograd cannot save inference tensors; their clones are ordinary.
        answer = {name: outputs[name].clone() for name in layers}
        _check_finite(answer)
        return answer

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def _outputs(self, call: NetworkCall, inner: Sequence[str]) -> Mapping[str, Tensor]:
        """The outputs of the inner layers and of the network; without inner layers no hook hinders a compiler."""
        if not inner:
            return {OUTPUT: output_tensor(self._network(*call.args, **call.kwargs))}
        network = getattr(self._network, "_orig_mod", self._network)  # compiled code may bypass the hooks
        recorder = Recorder(network, {name: self.module.get_submodule(name) for name in inner})
        try:
            with recorder.recording() as calls:
                network(*call.args, **call.kwargs)
        finally:
            recorder.remove()
        outputs = calls[-1].outputs if calls else {}
        if missing := [name for name in inner if name not in outputs]:
            raise ValueError(
                f"need teacher layers that run on the student's inputs, uncompiled, got no call of {listed(missing)}"
            )
        return outputs

    def _place(self, call: NetworkCall) -> None:
        """Move to the student's device, as late as a step: only a running step of a tuner or a process knows it."""
        device = next(iter(call.outputs.values())).device
        if device != self._device:
            self._convert(self.module.to(device)).eval()
            self._device = device


class Ensemble(nn.Module):
    """Several teachers as one: the mean of their logits.

    Args:
        members: modules with the same inputs and outputs of one shape. Their layers are named ``members.0.layer3``.

    Raises:
        ValueError: there is no member.

    >>> Ensemble([nn.Identity(), nn.ReLU()])(torch.tensor([-2.0, 2.0]))
    tensor([-1.,  2.])
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not isinstance(members, Sequence) or not all(isinstance(member, nn.Module) for member in members):
            raise TypeError(f"need members as a list of modules, got {shown(members)}")
        if not members:
            raise ValueError(f"need at least one member of the ensemble, got members={members!r}")
        self.members = nn.ModuleList(members)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Mean over the members of ``member(*args, **kwargs)``."""
        return torch.stack([output_tensor(member(*args, **kwargs)) for member in self.members]).mean(0)


def _memory(parameter: nn.Parameter) -> Iterator[Hashable]:
    """Keys that two parameters have in common if a step on the one changes the other."""
    yield id(parameter)
    if (
        not is_lazy(parameter)
        and parameter.numel()
        and parameter.device.type != "meta"
        and type(parameter.data) is Tensor
    ):
        yield parameter.device, parameter.data_ptr()


def _unchanged(module: nn.Module) -> nn.Module:
    return module


def _check_finite(answer: Mapping[str, Tensor]) -> None:
    for name, output in answer.items():
        if not bool(output.isfinite().all()):
            layer = "output" if name == OUTPUT else f"layer {name!r}"
            raise ValueError(f"need a teacher that answers with finite numbers, got nan or inf in its {layer}")
