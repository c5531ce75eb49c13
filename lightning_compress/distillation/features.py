"""Features: what a network's layers put out while it runs, recorded by forward hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["Call", "Recorder", "match", "tensor"]


@dataclass(frozen=True)
class Call:
    """One call of a network: its inputs, and what its layers put out.

    Attributes:
        args: positional inputs.
        kwargs: keyword inputs.
        outputs: name of the layer -> output; ``""`` is the network's own. Of a layer that ran several times
            during the call, the last.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: Mapping[str, Tensor]


class Recorder:
    """Records the calls of a network, and what the named layers put out during each.

    Args:
        network: the module whose calls count.
        layers: name under which an output is recorded -> module.

    >>> net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    >>> with Recorder(net, {"0": net[0]}).recording() as calls:
    ...     _ = net(torch.zeros(5, 3))
    >>> {name: tuple(output.shape) for name, output in calls[0].outputs.items()}
    {'0': (5, 2), '': (5, 2)}
    """

    def __init__(self, network: nn.Module, layers: Mapping[str, nn.Module]) -> None:
        self._calls: list[Call] | None = None
        self._outputs: dict[str, Tensor] = {}
        self._grad = True
        # The network comes last: a layer that is the network itself has then put out already.
        self._handles: list[RemovableHandle] = [
            layer.register_forward_hook(_LayerHook(self, name)) for name, layer in layers.items()
        ]
        self._handles.append(network.register_forward_hook(self._record_call, with_kwargs=True))

    @contextmanager
    def recording(self) -> Iterator[list[Call]]:
        """Collect the calls made inside; those without gradients amid those with count as asides."""
        self._calls, self._outputs, self._grad = [], {}, torch.is_grad_enabled()
        try:
            yield self._calls
        finally:
            self._calls, self._outputs = None, {}

    def remove(self) -> None:
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def record_layer(self, name: str, output: Any) -> None:
        """Note what a layer put out; its hook calls this."""
        if self._calls is not None and torch.is_grad_enabled() == self._grad:
            self._outputs[name] = tensor(output)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _record_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if self._calls is not None and torch.is_grad_enabled() == self._grad:
            self._calls.append(Call(args, kwargs, {**self._outputs, "": tensor(output)}))
            self._outputs = {}


@dataclass(frozen=True)
class _LayerHook:
    """A class and no closure, so that a hooked network can be copied and pickled."""

    recorder: Recorder
    name: str

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.recorder.record_layer(self.name, output)


def tensor(output: Any) -> Tensor:
    """The tensor in a layer's output: itself, entry ``"logits"`` of a mapping, the first of a tuple.

    Raises:
        TypeError: there is none.

    >>> tensor((torch.ones(1), "state"))
    tensor([1.])
    """
    found = output
    if isinstance(output, Mapping):
        found = output.get("logits")
    elif isinstance(output, tuple | list) and output:
        found = output[0]
    if isinstance(found, Tensor):
        return found
    raise TypeError(
        "need a layer that puts out a tensor, a mapping with a tensor 'logits' or a tuple led by a tensor, "
        f"got {type(output).__name__}"
    )


def match(names: list[str], pattern: str, whose: str) -> list[str]:
    """The layer names that match a shell pattern, in order.

    Args:
        names: names of all layers.
        pattern: ``"layer3"`` or ``"layer?.conv*"``; ``""`` is the network's own output. What ``torch.compile(module)``
            gave is named as what it was given.
        whose: ``"student"`` or ``"teacher"``, for the error.

    Raises:
        ValueError: none matches.

    >>> match(["", "conv", "layer1", "layer2"], "layer*", "student")
    ['layer1', 'layer2']
    """
    found = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(_plain(name), pattern)]
    if not found:
        raise ValueError(
            f"need a layer of the {whose} that matches {pattern!r}, got none; "
            f"there are: {', '.join(filter(None, map(_plain, names))) or 'none'}"
        )
    return found


def _plain(name: str) -> str:
    """The name of a layer without the wrappers of ``torch.compile(module)``; they themselves keep theirs."""
    return name if name.endswith("_orig_mod") else name.replace("_orig_mod.", "")
