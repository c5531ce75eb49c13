"""Weights on a grid: what quantization and binarization of weights share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_compress.arguments import check_code
from lightning_compress.processes import gather, local, shard
from lightning_compress.quantization.grids import Granularity, Grid, precise
from lightning_compress.schedules import Schedule
from lightning_compress.targets import Selection, Target
from lightning_compress.training import QUANTIZE, WeightCompression

__all__ = ["WeightGrids", "clear_grids", "grids_of", "set_grid"]

_GRIDS = "weight_grids"


def grids_of(module: nn.Module) -> dict[str, Grid]:
    """Name in the state dict -> grid, of the weights in ``module`` that are trained on one; all names of tied ones."""
    noted: dict[int, Grid] = {}
    for holder in module.modules():
        for key, grid in vars(holder).get(_GRIDS, {}).items():
            noted.setdefault(id(holder.get_parameter(key)), grid)  # the first holder's is renewed, see Target
    return {
        f"{name}.{key}" if name else key: noted[id(parameter)]
        for name, holder in module.named_modules()
        for key, parameter in holder.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in noted
    }


def set_grid(module: nn.Module, name: str, grid: Grid) -> None:
    """Note on the module that holds the weight ``name`` which grid it is on; the state dict does not show it."""
    path, _, key = name.rpartition(".")
    vars(module.get_submodule(path)).setdefault(_GRIDS, {})[key] = grid


def clear_grids(module: nn.Module) -> None:
    """Forget the grids of the weights in ``module``."""
    for holder in module.modules():
        vars(holder).pop(_GRIDS, None)


class WeightGrids(WeightCompression):
    """The weights are projected onto grids that are fitted to them every ``every_n_steps`` optimizer steps.

    While the schedule ramps the weights move towards the grid, ``(1 - strength) * latent + strength * P(latent)``;
    at strength 1 they are on it.

    Args:
        granularity: which weights share a scale.
        schedule: progress of the run -> strength.
        every_n_steps: optimizer steps between two fits of the grids.
        include: patterns of parameters to quantize; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of parameters to leave alone.
    """

    def __init__(
        self,
        *,
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
        self.granularity = granularity

    @property
    def settled(self) -> bool:
        return False  # the grids follow the weights to the end

    @abstractmethod
    def fit_grid(self, rows: Tensor) -> Grid:
        """The grid for a weight, cut into rows by the granularity."""

    def nearest(self, grid: Grid, weight: Tensor) -> Tensor:
        """The values on the grid that ``weight`` becomes."""
        return grid.project(weight)

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self._grids: dict[str, Grid] = {}  # for the part of the weight that is here

    def restore(self) -> None:
        super().restore()
        for name, target in self.targets.items():
            noted = grids_of(target.module).get(name.rpartition(".")[2])
            if noted is not None and self.strength > 0:
                self._grids[name] = self._here(target, noted)

    def check(self, target: Target) -> None:
        self.granularity.check(target.name, target.shape)
        if target.transposed:  # FSDP2 shards it along its inputs
            self.granularity.check(target.name, target.outputs_first(local(target.parameter)).shape)
        if getattr(target.module, "sparse", False):
            raise ValueError(f"need dense gradients, got {target.name!r} of an embedding with sparse=True: exclude it")
        if getattr(target.module, "max_norm", None) is not None:
            raise ValueError(
                f"need weights that nothing else changes, got {target.name!r} of an embedding with max_norm: exclude it"
            )

    def update(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in weights.items():
            target = self.targets[name]
            # Fitted to the whole weight, so that every process finds the same grid.
            whole = target.outputs_first(precise(gather(weight, target.parameter)))
            grid = replace(self.fit_grid(self.granularity.rows(whole)), transposed=target.transposed)
            set_grid(target.module, name.rpartition(".")[2], grid)
            self._grids[name] = self._here(target, grid)

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in weights.items():
            projected = self.nearest(self._grids[name], precise(weight)).to(weight.dtype)
            if self.strength < 1:
                weight.lerp_(projected, self.strength)
            else:
                weight.copy_(projected)

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

    def _here(self, target: Target, grid: Grid) -> Grid:
        """The grid of a whole weight -> that of this process's shard of it."""
        parameter = target.parameter
        device = local(parameter).device
        grid = replace(grid, scale=grid.scale.to(device), zero_point=grid.zero_point.to(device))
        if not isinstance(parameter, DTensor):
            return grid
        return grid.part(self.granularity, parameter.shape, lambda whole: shard(whole, parameter))
