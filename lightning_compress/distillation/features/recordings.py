"""Recordings: the outputs of a network's layers in each of its calls, taken by forward hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_compress.distillation.features.names import OUTPUT
from lightning_compress.example_inputs import entries_of

__all__ = ["NetworkCall", "Recorder", "output_tensor"]


@dataclass(frozen=True)
class NetworkCall:
    """One call of a network: its inputs, and the outputs of its layers.

    Attributes:
        args: positional inputs.
        kwargs: keyword inputs.
        outputs: name of the layer -> output; ``OUTPUT`` is the network's own. For a layer that ran several times
            during the call, the last output.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: Mapping[str, Tensor]


class Recorder:
    """Records the calls of a network with the outputs of the named layers.

    Args:
        network: the module whose calls are recorded.
        layers: name under which an output is recorded -> module.

    >>> net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    >>> with Recorder(net, {"0": net[0]}).recording() as calls:
    ...     _ = net(torch.zeros(5, 3))
    >>> {name: tuple(output.shape) for name, output in calls[0].outputs.items()}
    {'0': (5, 2), '': (5, 2)}
    """

    def __init__(self, network: nn.Module, layers: Mapping[str, nn.Module]) -> None:
        self._calls: list[NetworkCall] | None = None
        self._outputs: dict[str, Tensor] = {}
        self._grad = True
        # The network's hook comes last: if a layer is the network itself, its own hook has run by then.
        self._handles: list[RemovableHandle] = [
            layer.register_forward_hook(_LayerHook(self, name)) for name, layer in layers.items()
        ]
        self._handles.append(network.register_forward_hook(self._record_call, with_kwargs=True))

    @contextmanager
    def recording(self) -> Iterator[list[NetworkCall]]:
        """Collect the calls made inside; calls in another grad mode, such as those in ``no_grad``, are left out."""
        self._calls, self._outputs, self._grad = [], {}, torch.is_grad_enabled()
        try:
            yield self._calls
        finally:
            self._calls, self._outputs = None, {}

    def remove(self) -> None:
        """Remove the hooks from the network."""
        for handle in self._handles:
            handle.remove()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def record_layer(self, name: str, output: Any) -> None:
        """Record a layer's output; the layer's hook calls this."""
        if self._calls is not None and torch.is_grad_enabled() == self._grad:
            self._outputs[name] = output_tensor(output)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _record_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self._calls is not None and torch.is_grad_enabled() == self._grad:
            self._calls.append(NetworkCall(args, kwargs, {**self._outputs, OUTPUT: output_tensor(output)}))
            self._outputs = {}


@dataclass(frozen=True)
class _LayerHook:
    """The hook of one layer; a class rather than a closure, so that a hooked network can be copied and pickled."""

    recorder: Recorder
    name: str

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.recorder.record_layer(self.name, output)


def output_tensor(output: Any) -> Tensor:
    """The tensor in a layer's output.

    It is the output itself or the first of a tuple; of a mapping or a dataclass, the entry ``"logits"``, or the only
    tensor beside a ``"loss"``.

    Raises:
        TypeError: there is none, or there are several.

    >>> output_tensor((torch.ones(1), "state"))
    tensor([1.])
    >>> output_tensor({"prediction": torch.ones(1), "state": None})
    tensor([1.])
    """
    found = output
    if isinstance(output, tuple | list) and output:
        found = output[0]
    elif entries := entries_of(output):
        tensors = [value for name, value in entries.items() if isinstance(value, Tensor) and name != "loss"]
        found = entries.get("logits", tensors[0] if len(tensors) == 1 else None)
    if isinstance(found, Tensor):
        return found
    raise TypeError(
        "need a layer whose output is a tensor, a tuple that begins with a tensor, or a mapping or dataclass with a "
        f"tensor 'logits' or one tensor, got {type(output).__name__}: name another layer, or give network= the name "
        "of a submodule with such an output"
    )
