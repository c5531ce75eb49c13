"""Weight sharing during training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_compress.arguments import check_code, check_count
from lightning_compress.processes import gather, shard_group
from lightning_compress.schedules import Cubic, Schedule
from lightning_compress.sharing.gradients import Gradient
from lightning_compress.sharing.kmeans import Init, assign, fit, linear
from lightning_compress.sharing.totals import totals
from lightning_compress.targets import Selection, Target
from lightning_compress.training import SHARE, WeightCompression

__all__ = ["WeightSharingCallback"]

_MANY = 255  # clusters with which a ramp starts: with zero, what a byte can tell apart


class WeightSharingCallback(WeightCompression):
    """Let the weights of a layer, or of all layers, hold few distinct values, and train these values.

    K-means groups the weights; every weight holds the mean of its cluster. While the schedule ramps, the number of
    clusters falls by equal ratios from 255 to ``clusters``, fitted anew every ``every_n_steps`` optimizer steps. In
    between each weight learns behind the value that it holds, which moves by the mean of what its weights have learnt,
    and joins another cluster as soon as that is nearer. With ``gradient`` the clusters stay once the ramp is done: what
    is trained from then on are the shared values, by the summed gradients of their weights or the mean of them, as in
    Deep Compression (with ``schedule=Step(0.5)``, that is all that is done).

    A weight that pruning has set to zero stays zero: zero is then one of the ``clusters`` values.

    Args:
        clusters: distinct values per codebook, 2 or more.
        scope: a codebook for each target (``"layer"``), or one for all of them (``"global"``), which one optimizer must
            step.
        schedule: progress of the run -> how far the number of clusters has come down.
        every_n_steps: optimizer steps between two fits of the codebook while the schedule ramps.
        init: where k-means starts from; see :mod:`~lightning_compress.sharing.kmeans`.
        gradient: once the ramp is done, keep the clusters and train their values alone by what this function makes of
            the gradients of their weights; see :mod:`~lightning_compress.sharing.gradients`. By default weights go on
            learning behind the values that they hold, and change clusters, to the end.
        include: patterns of parameters to share; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of parameters to leave alone.

    Raises:
        ValueError: an argument is out of its range; in ``fit``, a weight is not finite, two callbacks share one weight,
            or several optimizers step the targets of one codebook.
        TypeError: ``include`` or ``exclude`` is one string; init, gradient or schedule a name or a number.

    From YAML::

        callbacks:
          - class_path: lightning_compress.WeightSharingCallback
            init_args:
              clusters: 16
              init: lightning_compress.sharing.kmeans.density
              schedule: {class_path: lightning_compress.schedules.Linear, init_args: {begin: 0.15, until: 0.9}}

    Papers: Han, Mao and Dally, "Deep Compression: compressing deep neural networks with pruning, trained quantization
    and Huffman coding", https://arxiv.org/abs/1510.00149 (2016); Ullrich, Meeds and Welling, "Soft weight-sharing for
    neural network compression", https://arxiv.org/abs/1702.04008 (2017).

    >>> WeightSharingCallback(clusters=1)
    Traceback (most recent call last):
    ValueError: need clusters >= 2, got clusters=1
    """

    def __init__(
        self,
        clusters: int = 16,
        *,
        scope: Literal["layer", "global"] = "layer",
        init: Init = linear,
        gradient: Gradient | None = None,
        schedule: Schedule = Cubic(begin=0.15, until=0.9),
        every_n_steps: int = 50,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        super().__init__(order=SHARE, schedule=schedule, every_n_steps=every_n_steps, include=include, exclude=exclude)
        check_code(init=init, gradient=gradient)
        check_count(2, clusters=clusters)
        if scope not in ("layer", "global"):
            raise ValueError(f"need scope 'layer' or 'global', got scope={scope!r}")
        self.clusters = clusters
        self.scope = scope
        self.init = init
        self.gradient = gradient

    @property
    def entries(self) -> int:
        """How many distinct values a codebook may hold now: from 255 down to ``clusters``, by equal ratios."""
        many = max(_MANY, self.clusters)
        return round(math.exp((1 - self.strength) * math.log(many) + self.strength * math.log(self.clusters)))

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self._codes: dict[str, Tensor] = {}  # 0 for a weight that is zero, k for one of the k-th cluster
        self._found = False  # the clusters are those that stay

    @property
    def settled(self) -> bool:
        return False  # zeros may come and go to the end

    def check(self, target: Target) -> None:
        if getattr(target.module, "sparse", False):
            raise ValueError(f"need dense gradients, got {target.name!r} of an embedding with sparse=True: exclude it")

    def describe(self) -> str:
        gradient, init = (getattr(each, "__name__", repr(each)) for each in (self.gradient, self.init))
        shared = "" if self.gradient is None else f", then trained by the {gradient} of gradients"
        return f"{self.clusters} values, {self.scope} scope, {init} start, {self.schedule}{shared}"

    def update(self, weights: Mapping[str, Tensor]) -> None:
        for names in self._codebooks(weights):
            self._codes |= self._present(names, weights)[0] if self._found else self._fitted(names, weights)
        self._found = self.strength == 1.0

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        for names in self._codebooks(weights):
            codes, table = self._present(names, weights)
            for name in names:
                weights[name].copy_(_look_up(table.to(weights[name].dtype), codes[name]))

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        for names in self._codebooks(gradients):
            if self._found and self.gradient is not None:
                self._share_(names, gradients, self.gradient)
            else:
                self._reassign(names, latents)

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        for names in self._codebooks(weights):
            values = len(torch.unique(torch.cat([weights[name].flatten() for name in names])))
            if values > self.entries:
                raise RuntimeError(f"need at most {self.entries} distinct values in {', '.join(names)}, got {values}")

    def metrics(self) -> dict[str, float]:
        return {"clusters": float(self.entries)}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        return {"codes": self._codes}

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._codes = {name: codes.clone() for name, codes in tensors["codes"].items()}
        self._found = self.strength == 1.0

    def _codebooks(self, tensors: Mapping[str, Tensor]) -> list[list[str]]:
        """Names of the tensors that share a codebook."""
        return [list(tensors)] if self.scope == "global" else [[name] for name in tensors]

    def _fitted(self, names: Sequence[str], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Codes of new clusters."""
        whole = torch.cat([gather(weights[name], self.targets[name].parameter).flatten() for name in names])
        others = whole[whole != 0]
        codebook = fit(others, self.entries - (len(others) < len(whole)), self.init)
        dtype = torch.uint8 if self.entries <= _MANY else torch.int32
        return {
            name: (assign(weights[name], codebook) + 1).masked_fill_(weights[name] == 0, 0).to(dtype) for name in names
        }

    def _present(self, names: Sequence[str], weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Codes of weights of which some have become zero and some others are zero no more, and the codes' values."""
        codes = {name: self._codes[name] * weights[name].bool() for name in names}  # 0 for what has become zero
        sums, counts = self._totals(names, weights, codes)
        # Zeros have come, and no entry is left for them; or all weights were zero, and some are no more.
        if torch.count_nonzero(counts) > self.entries or not counts[1:].any():
            codes = self._fitted(names, weights)
            sums, counts = self._totals(names, weights, codes)
        table = sums / counts.clamp(min=1)
        table[0] = 0
        for name in names:
            back = weights[name].bool().logical_and_(codes[name].bool().logical_not_())
            if back.any():
                codes[name][back] = _nearest(weights[name][back], table, counts).to(codes[name].dtype)
        return codes, table

    def _totals(
        self, names: Sequence[str], tensors: Mapping[str, Tensor], codes: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        if self.scope == "global" and len(names) < len(self._codes):
            raise ValueError(
                f"need one optimizer that steps all targets for scope='global', got one for {list(names)} of "
                f"{list(self._codes)}: use scope='layer', or exclude what is not trained"
            )
        group = shard_group([self.targets[name].parameter for name in names])
        return totals([tensors[name] for name in names], [codes[name] for name in names], self.entries + 1, group)

    def _reassign(self, names: Sequence[str], latents: Mapping[str, Tensor]) -> None:
        """Let every weight that has learnt its way to another cluster join it."""
        sums, counts = self._totals(names, latents, self._codes)
        for name in names:
            codes = self._codes[name]
            nearest = _nearest(latents[name], sums / counts.clamp(min=1), counts)
            self._codes[name] = nearest.to(codes.dtype).mul_(codes.bool())

    def _share_(self, names: Sequence[str], gradients: Mapping[str, Tensor], rule: Gradient) -> None:
        """Give all weights of a cluster one gradient; what is zero has no share, and may grow back by its own."""
        shared = rule(*self._totals(names, gradients, self._codes))
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
