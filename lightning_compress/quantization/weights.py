"""Weights on a grid: the common base of quantization and binarization of weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_compress.adapters.merging import GRIDS
from lightning_compress.arguments import check_code
from lightning_compress.processes import gather, local, shard
from lightning_compress.quantization.granularities import Granularity
from lightning_compress.quantization.grids import Grid, precise, project_
from lightning_compress.schedules import Schedule
from lightning_compress.targets import Selection, Target
from lightning_compress.training import QUANTIZE, WeightCompression

__all__ = ["WeightGrids", "clear_grids", "grids_of", "set_grid"]


def grids_of(module: nn.Module) -> dict[str, Grid]:
    """Name in the state dict -> grid, of every weight in ``module`` that has one. A tied weight has all its names."""
    noted: dict[int, Grid] = {}
    for holder in module.modules():
        for key, grid in vars(holder).get(GRIDS, {}).items():
            noted.setdefault(id(holder.get_parameter(key)), grid)  # the first holder's is updated, see Target
    return {
        f"{name}.{key}" if name else key: noted[id(parameter)]
        for name, holder in module.named_modules()
        for key, parameter in holder.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in noted
    }


def set_grid(module: nn.Module, name: str, grid: Grid) -> None:
    """Note the grid of the weight ``name`` on the module that holds it; the state dict does not change."""
    path, _, key = name.rpartition(".")
    vars(module.get_submodule(path)).setdefault(GRIDS, {})[key] = grid


def clear_grids(module: nn.Module) -> None:
    """Forget the grids of all weights in ``module``."""
    for holder in module.modules():
        vars(holder).pop(GRIDS, None)


class WeightGrids(WeightCompression):
    """Projects weights onto grids, which are fitted to them every ``every_n_steps`` optimizer steps.

    While the schedule ramps, a weight is ``(1 - strength) * latent + strength * P(latent)``; at strength 1 it is on its
    grid.

    Args:
        kind: class of the grids that :meth:`fit_grid` returns.
        granularity: which weights share a scale.
        schedule: progress of the run -> strength.
        every_n_steps: optimizer steps between two fits of the grids.
        include: patterns of parameters to quantize; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of parameters to leave alone.

    Raises:
        TypeError: ``granularity`` is no :class:`~.granularities.Granularity`.
    """

    lowers = True

    def __init__(
        self,
        *,
        kind: type[Grid],
        granularity: Granularity,
        schedule: Schedule,
        every_n_steps: int,
        include: Sequence[str],
        exclude: Sequence[str],
    ) -> None:
        super().__init__(
            order=QUANTIZE, schedule=schedule, every_n_steps=every_n_steps, include=include, exclude=exclude
        )
        check_code(granularity=granularity)
        if not isinstance(granularity, Granularity):
            raise TypeError(f"need granularity as a Granularity, such as PerChannel(), got {granularity!r}")
        self.granularity = granularity
        self._kind = kind

    @property
    def kind(self) -> type[Grid]:
        """Class of the grids."""
        return self._kind

    @property
    def settled(self) -> bool:
        return False  # the grids follow the weights to the end

    @abstractmethod
    def fit_grid(self, name: str, rows: Tensor) -> Grid:
        """The grid that fits the weight ``name``, whose granularity gave the rows ``(R, N)``."""

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self._grids: dict[str, Grid] = {}  # of this process's part of each weight

    def restore(self) -> None:
        super().restore()
        for name, target in self.targets.items():
            noted = _noted(target)
            if noted is not None and self.strength > 0:
                self._grids[name] = self._here(target, noted)

    def misfit(self, target: Target) -> str:
        try:
            self.granularity.check(target.name, target.shape)
        except ValueError:
            return f"its shape does not fit {self.granularity}"
        return ""

    def check(self, target: Target) -> None:
        self.granularity.check(target.name, target.shape)
        if target.transposed:  # FSDP2 shards it along its inputs
            self.granularity.check(target.name, target.outputs_first(local(target.parameter)).shape)
        if getattr(target.module, "sparse", False):
            raise ValueError(f"need dense gradients, got {target.name!r} of an embedding with sparse=True: exclude it")

    def update(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in weights.items():
            target = self.targets[name]
            grid = self.fit_grid(name, self._rows(name, weight))
            if type(grid) is not self.kind:
                raise TypeError(
                    f"need grids of one kind, {self.kind.__name__}, got a {type(grid).__name__} for {name!r}"
                )
            grid = replace(grid, transposed=target.transposed)
            set_grid(target.module, name.rpartition(".")[2], grid)
            self._grids[name] = self._here(target, grid)

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        if self._grids:  # none where an update waits for evidence
            project_(weights, self._grids, self.strength)

    def ship_(self, module: nn.Module, example: Any) -> None:
        for target in self.select(module):
            weight = target.parameter.detach()
            rows = self.granularity.rows(target.outputs_first(precise(weight)))
            grid = replace(self.fit_grid(target.name, rows), transposed=target.transposed)
            set_grid(target.module, target.name.rpartition(".")[2], grid)
            project_({target.name: weight}, {target.name: grid})

    def metrics(self) -> dict[str, float]:
        return {"quantization": self.strength}

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        """At strength 1 every weight is on the grid that checkpoints carry."""
        for name, weight in weights.items():
            noted = _noted(self.targets[name])
            if noted is None or self.strength < 1:
                continue
            if off := self._here(self.targets[name], noted).count_off(weight):
                raise RuntimeError(
                    f"need every weight of {name!r} on its {noted.bits}-bit grid, got {off} of {weight.numel()} off it"
                )

    def replace(self, parameters: Mapping[str, nn.Parameter | None], narrow: Callable[[str, Tensor], Tensor]) -> None:
        shapes = {name: target.parameter.shape for name, target in self.targets.items()}
        super().replace(parameters, narrow)
        self._grids = {name: grid for name, grid in self._grids.items() if name in self.targets}
        for name in self.targets.keys() & parameters.keys():
            self.check(self.targets[name])
        for name in self._grids.keys() & parameters.keys():
            grid = self._grids[name].part(self.granularity, shapes[name], partial(narrow, name))
            set_grid(self.targets[name].module, name.rpartition(".")[2], grid)
            self._grids[name] = grid

    def _rows(self, name: str, weight: Tensor) -> Tensor:
        """The rows of a whole weight, or of a tensor of its shape: every process finds the same grid."""
        target = self.targets[name]
        return self.granularity.rows(target.outputs_first(precise(gather(weight, target.parameter))))

    def _here(self, target: Target, grid: Grid) -> Grid:
        """The grid of a whole weight -> that of this process's shard of it."""
        parameter = target.parameter
        grid = grid.to(local(parameter).device)
        if not isinstance(parameter, DTensor):
            return grid
        return grid.part(self.granularity, parameter.shape, lambda whole: shard(whole, parameter))


def _noted(target: Target) -> Grid | None:
    """The grid that is noted on the module of a target."""
    return grids_of(target.module).get(target.name.rpartition(".")[2])
