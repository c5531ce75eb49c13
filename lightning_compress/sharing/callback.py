"""Weight sharing during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_compress.latent import gather, shard_group
from lightning_compress.schedules import Cubic, Schedule
from lightning_compress.sharing import gradients as shared_gradients
from lightning_compress.sharing.gradients import Gradient
from lightning_compress.sharing.kmeans import Init, assign, fit, linear
from lightning_compress.sharing.totals import totals
from lightning_compress.targets import Selection, Target
from lightning_compress.training import SHARE, WeightCompression

__all__ = ["WeightSharingCallback"]

_MANY = 255  # clusters with which a ramp starts: with zero, what a byte can tell apart


class WeightSharingCallback(WeightCompression):
    """TODO."""

    rank: ClassVar[int] = SHARE

    def __init__(
        self,
        clusters: int = 16,
        scope: Literal["layer", "global"] = "layer",
        schedule: Schedule = Cubic(begin=0.15, until=0.7),
        every_n_steps: int = 10,
        init: Init = linear,
        gradient: Gradient = shared_gradients.mean,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        super().__init__(schedule, every_n_steps, include, exclude)
        if clusters < 2:
            raise ValueError(f"need clusters >= 2, got clusters={clusters}")
        if scope not in ("layer", "global"):
            raise ValueError(f"need scope 'layer' or 'global', got scope={scope!r}")
        self.clusters = clusters
        self.scope = scope
        self.init = init
        self.gradient = gradient

    @property
    def entries(self) -> int:
        """How many distinct values the present strength allows: from 255 down to ``clusters``, by equal ratios."""
        return max(self.clusters, int(0.5 + (_MANY * (self.clusters / _MANY) ** self.strength))

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self._codes: dict[str, Tensor] = {}  # 0 for a weight that is zero, k + 1 for one of the codebook's entry k

    def check(self, target: Target) -> None:
        if getattr(target.module, "sparse", False):
            raise ValueError(f"need dense gradients, got {target.name!r} of an embedding with sparse=True: exclude it")

    def describe(self) -> str:
        gradient, init = (getattr(each, "__name__", repr(each)) for each in (self.gradient, self.init))
        return (
            f"at most {self.clusters} values, {self.scope} scope, {init} start, {gradient} gradients, {self.schedule}"
        )

    def update(self, weights: Mapping[str, Tensor]) -> None:
        for names in self._groups(weights):
            self._fit(names, weights)

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        for names in self._groups(weights):
            sums, counts = self._members(names, weights)
            if torch.count_nonzero(counts) > self.entries:  # zeros came, and there is no entry left for them
                self._fit(names, weights)
                sums, counts = self._members(names, weights)
            for name in names:
                table = (sums / counts.clamp(min=1)).to(weights[name].dtype)
                self._project_(name, weights[name], table, counts)

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        for names in self._groups(gradients):
            if self.settled:
                self._share_(names, gradients)
            else:
                self._reassign(names, latents)

    def metrics(self) -> dict[str, float]:
        key = "clusters" if self.include == ("*",) else f"clusters/{','.join(self.include)}"
        return {key: float(self.entries)}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        return {"codes": self._codes}

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._codes = {name: codes.clone() for name, codes in tensors["codes"].items()}

    def _groups(self, tensors: Mapping[str, Tensor]) -> list[list[str]]:
        """Names of the tensors that share a codebook."""
        return [list(tensors)] if self.scope == "global" else [[name] for name in tensors]

    def _fit(self, names: Sequence[str], weights: Mapping[str, Tensor]) -> None:
        """Find the codebook of the named weights, and the entry of each."""
        whole = torch.cat([gather(weights[name], self.targets[name].parameter).flatten() for name in names])
        others = whole[whole != 0]
        codebook = fit(others, self.entries - (len(others) < len(whole)), self.init)
        dtype = torch.uint8 if self.entries <= _MANY else torch.int32
        for name in names:
            codes = assign(weights[name], codebook) + 1
            self._codes[name] = codes.masked_fill_(weights[name] == 0, 0).to(dtype)

    def _members(self, names: Sequence[str], weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Sum and number of each cluster's members, without those that have become zero."""
        for name in names:
            self._codes[name].masked_fill_(weights[name] == 0, 0)
        sums, counts = self._totals(names, weights)
        sums[0] = 0
        return sums, counts

    def _totals(self, names: Sequence[str], tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        group = shard_group([self.targets[name].parameter for name in names])
        codes = [self._codes[name] for name in names]
        return totals([tensors[name] for name in names], codes, self.entries + 1, group)

    def _project_(self, name: str, weight: Tensor, table: Tensor, counts: Tensor) -> None:
        """Give each weight its cluster's value; one that was zero and is no more joins the nearest cluster."""
        codes = self._codes[name]
        back = (weight != 0).logical_and_(codes == 0)
        if back.any():
            codes[back] = _nearest(weight[back], table, counts).to(codes.dtype)
        weight.copy_(_look_up(table, codes))

    def _reassign(self, names: Sequence[str], latents: Mapping[str, Tensor]) -> None:
        """Let every weight that has learnt its way to another cluster join it."""
        sums, counts = self._totals(names, latents)
        for name in names:
            codes = self._codes[name]
            nearest = _nearest(latents[name], sums / counts.clamp(min=1), counts)
            self._codes[name] = nearest.to(codes.dtype).masked_fill_(codes == 0, 0)

    def _share_(self, names: Sequence[str], gradients: Mapping[str, Tensor]) -> None:
        """Give all weights of a cluster one gradient; what is zero has no share, and may grow back by its own."""
        shared = self.gradient(*self._totals(names, gradients))
        for name in names:
            codes, gradient = self._codes[name], gradients[name]
            gradient.copy_(torch.where(codes == 0, gradient, _look_up(shared.to(gradient.dtype), codes)))


def _nearest(weights: Tensor, table: Tensor, counts: Tensor) -> Tensor:
    """Code of the cluster, of those that have members, whose value is nearest; 0 if there is none."""
    used = counts[1:].nonzero().squeeze(1).int() + 1
    if not len(used):
        return torch.zeros_like(weights, dtype=torch.int32)
    ascending, order = table[used].to(weights.dtype).sort()
    return _look_up(used[order], assign(weights, ascending))


def _look_up(table: Tensor, codes: Tensor) -> Tensor:
    """``table[codes]``, several times as fast."""
    return table.index_select(0, codes.flatten().int()).view(codes.shape)
