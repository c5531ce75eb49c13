"""Weight sharing during training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

from lightning_compress.arguments import check_count, check_function, check_tensor_answer
from lightning_compress.blocks import blocks, bundles, stacked
from lightning_compress.messages import listed
from lightning_compress.processes import gather, shard_group
from lightning_compress.schedules import Cubic, Schedule
from lightning_compress.sharing.clusters import MANY, Clusters, assign_, code_dtype, look_up, look_up_, nonzero
from lightning_compress.sharing.exact_sums import cluster_sums
from lightning_compress.sharing.gradients import Gradient
from lightning_compress.sharing.initial_centers import Init, linear
from lightning_compress.sharing.kmeans import assign, fit, fit_rows
from lightning_compress.targets import Selection, Target, check_alike
from lightning_compress.training import SHARE, WeightCompression

__all__ = ["WeightSharingCallback"]


class WeightSharingCallback(WeightCompression):
    """Let the weights of a layer, or of all layers, hold few distinct values, and train these values.

    K-means groups the weights; every weight holds the mean of its cluster. While the schedule ramps, the number of
    values falls from 255 (with zero, the codes of one byte) to ``clusters``, by the same factor in equal parts of the
    ramp, and k-means runs again every ``every_n_steps`` optimizer steps. Between two runs the latent of each weight is
    trained on its own. The value of a cluster is the mean of its latents, and a weight changes cluster when its latent
    is nearer to another value. With ``gradient``, the clusters do not change once the ramp ends:
    from then on only the shared values are trained, by the sum or the mean of the gradients of their weights. Together
    with ``schedule=Step(0.5)``, which has no ramp, this is Deep Compression.

    A weight that pruning has masked stays zero; zero is then one of the ``clusters`` values.

    Args:
        clusters: distinct values per codebook, 2 or more.
        scope: a codebook for each target (``"layer"``), or one for all targets (``"global"``), which then need a common
            optimizer.
        init: initial centers of k-means; see :mod:`~lightning_compress.sharing.initial_centers`.
        gradient: function that turns the gradients of the weights of a cluster into the gradient of its value, their
            sum or mean. If given, the clusters are fixed when the ramp ends and only the values are trained. See
            :mod:`~lightning_compress.sharing.gradients`. By default weights change clusters until the end of the run.
        schedule: progress of the run -> how far the number of values has fallen, from 0 (255) to 1 (``clusters``).
        every_n_steps: optimizer steps between two runs of k-means. Each run sorts all weights, so it is too expensive
            for every step.
        include: patterns of the parameters to compress; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of the parameters to leave alone.

    Raises:
        ValueError: an argument is out of its range; in ``fit``, a weight is not finite, two callbacks have a common
            target, or several optimizers step the targets of one codebook.
        TypeError: an argument is of another kind: a float or text as ``clusters``, a name instead of a function, one
            string instead of a sequence of patterns.

    From YAML::

        callbacks:
          - class_path: lightning_compress.WeightSharingCallback
            init_args:
              clusters: 16
              init: lightning_compress.sharing.initial_centers.density
              schedule: {class_path: lightning_compress.schedules.Linear, init_args: {begin: 0.15, until: 0.9}}

    Papers: Han, Mao and Dally, "Deep Compression: compressing deep neural networks with pruning, trained quantization
    and Huffman coding", https://arxiv.org/abs/1510.00149 (2016); Ullrich, Meeds and Welling, "Soft weight-sharing for
    neural network compression", https://arxiv.org/abs/1702.04008 (2017).

    >>> WeightSharingCallback(clusters=1)
    Traceback (most recent call last):
    ValueError: need clusters >= 2, got clusters=1
    """

    changeable = WeightCompression.changeable | {"gradient"}

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
        check_function("values", "clusters", init=init)
        if gradient is not None:
            check_function("sums", "sizes", gradient=gradient)
        check_count(2, clusters=clusters)
        if scope not in ("layer", "global"):
            raise ValueError(f"need scope 'layer' or 'global', got scope={scope!r}")
        self.clusters = clusters
        self.scope = scope
        self.init = init
        self.gradient = gradient

    @property
    def entries(self) -> int:
        """Number of distinct values that a codebook may hold at the present strength, from 255 to ``clusters``."""
        many = max(MANY, self.clusters)
        return round(math.exp((1 - self.strength) * math.log(many) + self.strength * math.log(self.clusters)))

    def begin(self, selection: Selection) -> None:
        if selection.targets and self.scope == "global":
            check_alike(selection.targets, "scope='global'", "scope='layer'")
        super().begin(selection)
        self._codes: dict[str, Tensor] = {}  # see clusters.py
        self._moved: dict[str, Tensor] = {}  # codes from the next step on
        self._final = False  # at full strength: k-means has run for the last time

    @property
    def settled(self) -> bool:
        return False  # pruning may still change which weights are zero

    def check(self, target: Target) -> None:
        if getattr(target.module, "sparse", False):
            raise ValueError(f"need dense gradients, got {target.name!r} of an embedding with sparse=True: exclude it")
        if self.scope == "global" and target.path is not None:
            raise ValueError(
                f"need scope='layer' for {target.name!r}, a weight with an adapter, got scope='global': merging rounds "
                "the values of each layer by itself"
            )

    def describe(self) -> str:
        gradient, init = (getattr(each, "__name__", repr(each)) for each in (self.gradient, self.init))
        shared = "" if self.gradient is None else f", then trained by the {gradient} of gradients"
        return f"{self.clusters} values, {self.scope} scope, {init} start, {self.schedule}{shared}"

    def update(self, weights: Mapping[str, Tensor]) -> None:
        for group in self._codebooks(weights):
            if self._final and self._codes.keys() >= set(chain(*group)):
                for names, codes in zip(group, self._repaired(group, weights)[0], strict=True):
                    self._codes |= zip(names, self._apart(codes), strict=True)
            else:
                self._codes |= self._fitted(group, weights)
        self._final = self.strength == 1.0

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        for group in self._codebooks(weights):
            codes, clusters = self._repaired(group, weights)
            values = clusters.values
            for names, code in zip(group, codes, strict=True):
                whole = self._together(names, weights)
                look_up_(whole, values, code)
                self._write_back_(names, weights, whole)

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        self._moved = {}  # of a step that has not come

    def stepped(self) -> None:
        self._codes |= self._moved
        self._moved = {}

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        for group in self._codebooks(gradients):
            if self._final and self.gradient is not None:
                self._share_gradients_(group, gradients, self.gradient)
            else:
                self._reassign(group, latents)

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        for names in [list(weights)] if self.scope == "global" else [[name] for name in weights]:
            found = [torch.unique(part) for name in names for (part,) in blocks(weights[name])]
            values = len(torch.unique(torch.cat(found)))
            if values > self.entries:
                raise RuntimeError(f"need at most {self.entries} distinct values in {listed(names)}, got {values}")

    def metrics(self) -> dict[str, float]:
        return {"clusters": float(self.entries)}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        return {"codes": self._codes}

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._codes = {name: codes.clone() for name, codes in tensors["codes"].items()}
        self._final = self.strength == 1.0

    def _codebooks(self, tensors: Mapping[str, Tensor]) -> list[list[list[str]]]:
        """Bundles of names, the same on every process: each group of bundles holds one codebook, or one per name."""
        parameters = {name: self.targets[name].parameter for name in tensors}
        found = bundles(parameters, lambda name: tensors[name].dtype)
        return [found] if self.scope == "global" else [[names] for names in found]

    def _together(self, names: Sequence[str], tensors: Mapping[str, Tensor]) -> Tensor:
        """The tensors of a bundle as one, ``(codebooks, ...)``: a view of a single one."""
        whole = stacked([tensors[name] for name in names])
        return whole[None] if self.scope == "global" else whole

    def _apart(self, whole: Tensor) -> tuple[Tensor, ...]:
        return (whole[0] if self.scope == "global" else whole).unbind()

    def _write_back_(self, names: Sequence[str], tensors: Mapping[str, Tensor], whole: Tensor) -> None:
        if len(names) > 1:  # else it is a view
            torch._foreach_copy_([tensors[name] for name in names], self._apart(whole))

    def _fitted(self, group: Sequence[Sequence[str]], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Codes of new clusters, by k-means."""
        codes: dict[str, Tensor] = {}
        for names in [list(chain(*group))] if self.scope == "global" else group:
            one = self.scope == "global" or len(names) == 1
            codes |= (self._fitted_together if one else self._fitted_apart)(names, weights)
        return codes

    def _fitted_together(self, names: Sequence[str], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Codes of one codebook for all of the weights."""
        wholes = (gather(weights[name], self.targets[name].parameter) for name in names)
        others, zeros = nonzero(wholes, sum(self.targets[name].parameter.numel() for name in names))
        codebook = fit(others, self.entries - (zeros > 0), self.init, overwrite=True)
        del others  # before memory is taken for codes
        codes = {name: torch.empty_like(weights[name], dtype=code_dtype(self.entries)) for name in names}
        for name in names:
            assign_(codes[name], weights[name], lambda part: assign(part, codebook) + 1)
        return codes

    def _fitted_apart(self, names: Sequence[str], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Codes of one codebook for each of the weights, which have one shape."""
        wholes = torch.stack([gather(weights[name], self.targets[name].parameter).flatten() for name in names])
        codebooks = fit_rows(wholes, self.entries - (wholes == 0).any(1).int(), self.init)
        mine = torch.stack([weights[name] for name in names])
        codes = torch.empty_like(mine, dtype=code_dtype(self.entries))
        assign_(codes, mine, lambda part: assign(part, codebooks) + 1)
        return dict(zip(names, codes.unbind(), strict=True))

    def _repaired(self, group: Sequence[Sequence[str]], weights: Mapping[str, Tensor]) -> tuple[list[Tensor], Clusters]:
        """Codes of each bundle that agree with the zeros of the weights, which pruning may have changed; clusters."""
        wholes = [self._together(names, weights) for names in group]
        codes = [self._together(names, self._codes) * whole.bool() for names, whole in zip(group, wholes, strict=True)]
        clusters = self._clusters(group, wholes, codes)
        # New zeros need a value of their own and none is left; or all weights were zero, and now some are not.
        if (unfit := clusters.unfit(self.entries)).any():
            changed = [
                [name for name, bad in zip(names, unfit.expand(len(names)).tolist(), strict=True) if bad]
                for names in group
            ]
            fitted = self._fitted(changed, weights)
            for names, code in zip(group, codes, strict=True):
                for name, mine in zip(names, self._apart(code), strict=True):
                    if name in fitted:
                        mine.copy_(fitted[name])
            clusters = self._clusters(group, wholes, codes)
        for whole, of_whole in zip(wholes, codes, strict=True):
            for code, weight in blocks(of_whole, whole):
                unmasked = weight.bool().logical_and_(code.bool().logical_not_())
                if unmasked.any():
                    for row, mine, here, latent in zip(clusters.rows(), code, unmasked, weight, strict=True):
                        mine[here] = row.nearest(latent[here][None])[0].to(code.dtype)
        return codes, clusters

    def _reassign(self, group: Sequence[Sequence[str]], latents: Mapping[str, Tensor]) -> None:
        """Move every weight to the cluster whose value is nearest to its latent, once the optimizer has stepped."""
        wholes = [self._together(names, latents) for names in group]
        codes = [self._together(names, self._codes) for names in group]
        clusters = self._clusters(group, wholes, codes)
        for names, whole, before in zip(group, wholes, codes, strict=True):
            moved = before.clone()
            for code, latent in blocks(moved, whole):
                code.copy_(clusters.nearest(latent).mul_(code.bool()))
            self._moved |= zip(names, self._apart(moved), strict=True)

    def _share_gradients_(
        self, group: Sequence[Sequence[str]], gradients: Mapping[str, Tensor], rule: Gradient
    ) -> None:
        """Give all weights of a cluster one gradient. A weight that is zero keeps its own, by which it may return."""
        wholes = [self._together(names, gradients) for names in group]
        codes = [self._together(names, self._codes) for names in group]
        clusters = self._clusters(group, wholes, codes)
        shared = [rule(sums, counts) for sums, counts in zip(clusters.sums, clusters.counts, strict=True)]
        for each in shared:
            check_tensor_answer("gradient(sums, sizes)", rule, each, clusters.sums.shape[1:])
        table = torch.stack(shared)
        for names, whole, of_whole in zip(group, wholes, codes, strict=True):
            for gradient, code in blocks(whole, of_whole):
                gradient.copy_(torch.where(code == 0, gradient, look_up(table.to(gradient.dtype), code)))
            self._write_back_(names, gradients, whole)

    def _clusters(self, group: Sequence[Sequence[str]], tensors: Sequence[Tensor], codes: Sequence[Tensor]) -> Clusters:
        names = list(chain(*group))
        if self.scope == "global" and len(names) < len(self._codes):
            raise ValueError(
                f"need one optimizer that steps all targets for scope='global', got one for {len(names)} of "
                f"{len(self._codes)}, {listed(names)}: use scope='layer', or exclude the parameters that are not "
                "trained"
            )
        shards = shard_group([self.targets[name].parameter for name in names])
        return Clusters(*cluster_sums(tensors, codes, self.entries + 1, shards))
