"""Promises about the weights after ``fit``: each is a function of a module that fails where the promise is broken."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_compress import export
from lightning_compress.adapters import additive_paths, merge
from lightning_compress.quantization.weights import grids_of

Promise = Callable[[nn.Module], None]
STEM = "net.0.weight"  # the first convolution of the toy has one input: no group of four fits


def weights(module: nn.Module) -> dict[str, Tensor]:
    """The parameters that the methods compress by default: those of more than one dimension."""
    return {name: p.detach() for name, p in module.named_parameters() if p.ndim > 1}


def rows_of_four(module: nn.Module) -> dict[str, Tensor]:
    """Nonzeros in every group of four inputs, of all weights but the stem's."""
    return {
        name: (weight.movedim(1, -1).reshape(-1, 4) != 0).sum(1)
        for name, weight in weights(module).items()
        if name != STEM
    }


def nothing(module: nn.Module) -> None:
    """No promise about weights."""


def all_of(*promises: Promise) -> Promise:
    """Every one of the promises."""

    def check(module: nn.Module) -> None:
        for promise in promises:
            promise(module)

    return check


def shipped(module: nn.Module) -> nn.Module:
    """The module; a copy with merged adapters, if it has some."""
    return merge(copy.deepcopy(module)) if additive_paths(module) else module


def merged(promise: Promise) -> Promise:
    """The promise about the module with merged adapters."""

    def check(module: nn.Module) -> None:
        promise(shipped(module))

    return check


def sparsity(fraction: float, *skipped: str) -> Promise:
    """The fraction of all weights is zero, within one weight."""

    def check(module: nn.Module) -> None:
        chosen = [weight for name, weight in weights(module).items() if name not in skipped]
        total = sum(weight.numel() for weight in chosen)
        zeros = [int((weight == 0).sum()) for weight in chosen]
        assert abs(sum(zeros) - fraction * total) <= 1, f"{sum(zeros)} zeros of {total} weights, by tensor {zeros}"

    return check


def at_least(fraction: float) -> Promise:
    """At least this fraction of all weights is zero: small weights may be rounded to zero as well."""

    def check(module: nn.Module) -> None:
        total = sum(weight.numel() for weight in weights(module).values())
        assert sum(int((weight == 0).sum()) for weight in weights(module).values()) >= fraction * total - 1

    return check


def file_of(most: int, least: float = 0.85) -> Promise:
    """The archive takes so many bytes or less, and not much less."""

    def check(module: nn.Module) -> None:
        with tempfile.TemporaryDirectory() as folder:
            size = export(module, Path(folder) / "m.lcz").stat().st_size
        assert least * most <= size <= most

    return check


def two_of_four(module: nn.Module) -> None:
    """Two of every four inputs are zero."""
    assert all((count == 2).all() for count in rows_of_four(module).values())


def at_most_two_of_four(module: nn.Module) -> None:
    """At least two of every four inputs are zero: small weights may be rounded to zero as well."""
    assert all((count <= 2).all() for count in rows_of_four(module).values())


def tiles(module: nn.Module) -> None:
    """Tiles of 2 x 4 are zero as a whole, or not at all."""
    for name, weight in weights(module).items():
        if name != STEM:
            kept = (weight.flatten(1) != 0).reshape(weight.shape[0] // 2, 2, -1, 4).sum((1, 3))
            assert set(kept.unique().tolist()) <= {0, 8}


def values(most: int) -> Promise:
    """Every weight holds at most so many distinct values."""

    def check(module: nn.Module) -> None:
        assert all(len(weight.unique()) <= most for weight in weights(module).values())

    return check


def at_most(count: int) -> Promise:
    """Every output channel holds at most so many distinct values."""

    def check(module: nn.Module) -> None:
        assert all(len(row.unique()) <= count for weight in weights(module).values() for row in weight.flatten(1))

    return check


def on_grids(module: nn.Module) -> bool:
    """Whether the module has grids, and every weight with a grid is on it."""
    grids = grids_of(module)
    return bool(grids) and all(
        torch.equal(grid.project(module.get_parameter(name).detach()), module.get_parameter(name).detach())
        for name, grid in grids.items()
    )


def integers(module: nn.Module) -> None:
    """Every weight with a grid is on it."""
    assert on_grids(module)


def bits_on_average(most: float, least: float) -> Promise:
    """Weights are on grids of more than one number of bits, of no more than so many on average."""

    def promise(module: nn.Module) -> None:
        integers(module)
        grids = grids_of(module)
        sizes = {name: module.get_parameter(name).numel() for name in grids}
        average = sum(grid.bits * sizes[name] for name, grid in grids.items()) / sum(sizes.values())
        assert least < average <= most
        assert len({grid.bits for grid in grids.values()}) > 1

    return promise


def binary(module: nn.Module) -> None:
    """Every output channel holds two values, -a and a."""
    assert all((row.abs() == row.abs()[0]).all() for weight in weights(module).values() for row in weight.flatten(1))


POSITIONS = {"net.0.weight": 64, "net.3.weight": 16, "net.9.weight": 1, "net.11.weight": 1}
"""How often an image of the toy meets each weight."""
DENSE_MACS = 64 * 72 + 16 * 1152 + 2048 + 320


def half_the_macs(module: nn.Module) -> None:
    """Weights that are left, or not zero, take at most half of the multiply-accumulates."""
    macs = sum(POSITIONS[name] * int((weight != 0).sum()) for name, weight in weights(module).items())
    assert 0 < macs <= DENSE_MACS / 2


def half_the_macs_of_all_entries(module: nn.Module) -> None:
    """Weights take at most half of the multiply-accumulates, their zeros included."""
    macs = sum(POSITIONS[name] * weight.numel() for name, weight in weights(module).items())
    assert 0 < macs <= DENSE_MACS / 2


def whole_channels(module: nn.Module) -> None:
    """At least eight whole output channels are zero, and shapes are as they were."""
    assert sum(weight.numel() for weight in weights(module).values()) == 72 + 1152 + 2048 + 320
    empty = [(weight.flatten(1) == 0).all(1) for weight in weights(module).values()]
    assert sum(int(rows.sum()) for rows in empty) >= 8


def narrow(module: nn.Module) -> None:
    """Channels are gone from the tensors."""
    assert sum(weight.numel() for weight in weights(module).values()) < 72 + 1152 + 2048 + 320


def low_rank(module: nn.Module) -> None:
    """At most half of the weights: entries of whole weights, of split factors, or of the factors of a low rank."""
    kept = 0
    for weight in weights(module).values():
        matrix = weight.flatten(1).double()
        spectrum = torch.linalg.svdvals(matrix)
        rank = int((spectrum > 1e-5 * spectrum[0]).sum())
        kept += min(matrix.numel(), rank * sum(matrix.shape))
    assert kept <= (72 + 1152 + 2048 + 320) / 2


def without_block(module: nn.Module) -> None:
    """The residual block of the toy is gone."""
    assert "net.2.conv1.weight" not in dict(module.named_parameters())
