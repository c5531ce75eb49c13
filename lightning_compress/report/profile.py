"""Profiles: what a module weighs and what it costs to run, measured without a trace left in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from lightning_compress.archive import archived_bytes
from lightning_compress.deploy.modes import ExampleInput, call, evaluating, on_device
from lightning_compress.latent import gather, local

__all__ = ["Cost", "LayerProfile", "ModelProfile", "measure", "profile"]

_SECONDS = 0.2  # over which a latency is measured


@dataclass(frozen=True)
class LayerProfile:
    """One parameter tensor; tied ones are one.

    Attributes:
        name: in the state dict.
        shape: its sizes.
        nonzeros: elements that are not zero.
        distinct: different values among its elements.
        state_bytes: in a state dict, which stores every element.
        archive_bytes: as a ``.lcz`` archive of its own.
    """

    name: str
    shape: tuple[int, ...]
    nonzeros: int
    distinct: int
    state_bytes: int
    archive_bytes: int

    @property
    def parameters(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Cost:
    """One forward pass in evaluation mode, eager, without gradients.

    Attributes:
        macs: multiply-accumulates of matrix products, convolutions and attention; zeros count like other numbers.
        layer_macs: the part of each module that is not its children's, by name.
        latency: median, in seconds.
        spread: distance of the quartiles of the latency, in seconds.
        inputs: the shapes of the tensors that were given.
        device: ``"cpu"``, ``"cuda"``.
        threads: CPU threads.
    """

    macs: int
    layer_macs: dict[str, int]
    latency: float
    spread: float
    inputs: str
    device: str
    threads: int


@dataclass(frozen=True)
class ModelProfile:
    """A whole module.

    Attributes:
        layers: one profile per parameter tensor.
        state_bytes: of all tensors of the state dict, tied ones once, buffers too.
        archive_bytes: of the whole state dict as one ``.lcz`` file.
        cost: of a forward pass, if there was an example to run.
    """

    layers: tuple[LayerProfile, ...]
    state_bytes: int
    archive_bytes: int
    cost: Cost | None = None

    @property
    def parameters(self) -> int:
        """Number of elements of all parameters."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def nonzeros(self) -> int:
        """Number of elements that are not zero."""
        return sum(layer.nonzeros for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """Share of zeros, in [0, 1]."""
        return 1 - self.nonzeros / self.parameters if self.parameters else 0.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelProfile:
        """The profile of which ``dataclasses.asdict`` made ``values``."""
        layers = tuple(LayerProfile(**{**layer, "shape": tuple(layer["shape"])}) for layer in values["layers"])
        cost = Cost(**values["cost"]) if values["cost"] else None
        return cls(layers, values["state_bytes"], values["archive_bytes"], cost)


def profile(module: nn.Module, example_input: ExampleInput | None = None) -> ModelProfile:
    """Weigh ``module`` and, given an example, run it; it is left exactly as it was.

    Sharded parameters are gathered: call it on every rank then.

    Args:
        module: the module.
        example_input: what ``forward`` takes; see :func:`measure`.

    Raises:
        TypeError: the state dict holds what is no tensor.

    >>> profiled = profile(nn.Linear(3, 2))
    >>> profiled.parameters, profiled.state_bytes, profiled.layers[0].name
    (8, 32, 'weight')
    """
    state = {name: _whole(tensor) for name, tensor in module.state_dict().items()}
    weighed = ModelProfile(
        layers=tuple(_layer(name, _whole(parameter)) for name, parameter in module.named_parameters()),
        state_bytes=sum({_memory(tensor): tensor.nbytes for tensor in state.values()}.values()),
        archive_bytes=archived_bytes(state),
    )
    return weighed if example_input is None else replace(weighed, cost=measure(module, example_input))


def measure(module: nn.Module, example_input: ExampleInput) -> Cost:
    """Count the multiply-accumulates of a forward pass, and take its time.

    Args:
        module: the module, on the device where it is to be measured; not a sharded one.
        example_input: a tensor, a tuple of positional or a mapping of keyword arguments.

    >>> measure(nn.Linear(30, 20), torch.zeros(1, 30)).macs
    600
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    example = on_device(example_input, device)
    # Compiling here would fix the graph before other callbacks have attached their hooks.
    with evaluating(module), torch.compiler.set_stance("force_eager"):
        with _unfused(), FlopCounterMode(display=False) as counter:
            call(module, example)
        timer = Timer("call(module, example)", globals={"call": call, "module": module, "example": example})
        timed = timer.blocked_autorange(min_run_time=_SECONDS)
    macs = {name: sum(flops.values()) // 2 for name, flops in counter.get_flop_counts().items()}
    root = type(module).__name__
    named = {name.removeprefix(root).removeprefix("."): count for name, count in macs.items() if name != "Global"}
    return Cost(
        macs=counter.get_total_flops() // 2,
        layer_macs={name: count for name in named if (count := _own(module, name, named)) > 0},
        latency=timed.median,
        spread=timed.iqr,
        inputs=_shapes(example),
        device=device.type,
        threads=timed.num_threads,
    )


@contextmanager
def _unfused() -> Iterator[None]:
    """Recurrent and transformer layers step by step: the counter does not look into their fused kernels."""
    backends: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    enabled = [backend.enabled for backend in backends]
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for backend in backends:
            backend.enabled = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for backend, was in zip(backends, enabled, strict=True):
            backend.enabled = was


def _layer(name: str, tensor: Tensor) -> LayerProfile:
    return LayerProfile(
        name=name,
        shape=tuple(tensor.shape),
        nonzeros=int(tensor.count_nonzero()),
        distinct=torch.unique(tensor).numel(),
        state_bytes=tensor.nbytes,
        archive_bytes=archived_bytes({name: tensor}),
    )


def _own(module: nn.Module, name: str, macs: Mapping[str, int]) -> int:
    """What a module counted, less what its children did."""
    children = (f"{name}.{child}".removeprefix(".") for child, _ in module.get_submodule(name).named_children())
    return macs[name] - sum(macs.get(child, 0) for child in children)


def _whole(tensor: Tensor) -> Tensor:
    return gather(local(tensor.detach()), tensor.detach())


def _memory(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for tied tensors only."""
    return tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape)


def _shapes(example: Any) -> str:
    if isinstance(example, Tensor):
        return " x ".join(map(str, example.shape)) or "scalar"
    values = example.values() if isinstance(example, Mapping) else example if isinstance(example, tuple | list) else ()
    return ", ".join(shapes for value in values if (shapes := _shapes(value)))
