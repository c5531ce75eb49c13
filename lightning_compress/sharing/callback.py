"""Weight sharing during training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_compress.arguments import check_count, check_function, check_tensor_answer
from lightning_compress.blocks import blocks
from lightning_compress.messages import listed
from lightning_compress.processes import gather, shard_group
from lightning_compress.schedules import Cubic, Schedule
from lightning_compress.sharing.clusters import Clusters, assign_, look_up, look_up_, nonzero
from lightning_compress.sharing.exact_sums import cluster_sums
from lightning_compress.sharing.gradients import Gradient
from lightning_compress.sharing.initial_centers import Init, linear
from lightning_compress.sharing.kmeans import assign, fit
from lightning_compress.targets import Selection, Target
from lightning_compress.training import SHARE, WeightCompression

__all__ = ["WeightSharingCallback"]

_MANY = 255  # values at the start of a ramp: with zero, the codes of one byte


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
        many = max(_MANY, self.clusters)
        return round(math.exp((1 - self.strength) * math.log(many) + self.strength * math.log(self.clusters)))

    def begin(self, selection: Selection) -> None:
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
        for names in self._codebooks(weights):
            known = self._final and self._codes.keys() >= set(names)
            self._codes |= self._repaired(names, weights)[0] if known else self._fitted(names, weights)
        self._final = self.strength == 1.0

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        for names in self._codebooks(weights):
            codes, clusters = self._repaired(names, weights)
            values = clusters.values
            for name in names:
                look_up_(weights[name], values, codes[name])

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        self._moved = {}  # of a step that has not come

    def stepped(self) -> None:
        self._codes |= self._moved
        self._moved = {}

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        for names in self._codebooks(gradients):
            if self._final and self.gradient is not None:
                self._share_gradients_(names, gradients, self.gradient)
            else:
                self._reassign(names, latents)

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        for names in self._codebooks(weights):
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

    def _codebooks(self, tensors: Mapping[str, Tensor]) -> list[list[str]]:
        """Names of the tensors that share a codebook."""
        return [list(tensors)] if self.scope == "global" else [[name] for name in tensors]

    def _fitted(self, names: Sequence[str], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Codes of new clusters, by k-means."""
        wholes = (gather(weights[name], self.targets[name].parameter) for name in names)
        others, zeros = nonzero(wholes, sum(self.targets[name].parameter.numel() for name in names))
        codebook = fit(others, self.entries - (zeros > 0), self.init, overwrite=True)
        del others  # before memory is taken for codes
        dtype = torch.uint8 if self.entries <= _MANY else torch.int32
        codes = {name: torch.empty_like(weights[name], dtype=dtype) for name in names}
        for name in names:
            assign_(codes[name], weights[name], lambda part: assign(part, codebook) + 1)
        return codes

    def _repaired(self, names: Sequence[str], weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Clusters]:
        """Codes that agree with the zeros of the weights, which pruning may have changed, and their clusters."""
        codes = {name: self._codes[name] * weights[name].bool() for name in names}
        clusters = self._clusters(names, weights, codes)
        # New zeros need a value of their own and none is left; or all weights were zero, and now some are not.
        if clusters.used > self.entries or clusters.all_zero:
            codes = self._fitted(names, weights)
            clusters = self._clusters(names, weights, codes)
        for name in names:
            for code, weight in blocks(codes[name], weights[name]):
                unmasked = weight.bool().logical_and_(code.bool().logical_not_())
                if unmasked.any():
                    code[unmasked] = clusters.nearest(weight[unmasked]).to(code.dtype)
        return codes, clusters

    def _reassign(self, names: Sequence[str], latents: Mapping[str, Tensor]) -> None:
        """Move every weight to the cluster whose value is nearest to its latent, once the optimizer has stepped."""
        clusters = self._clusters(names, latents, self._codes)
        for name in names:
            moved = self._moved[name] = self._codes[name].clone()
            for code, latent in blocks(moved, latents[name]):
                code.copy_(clusters.nearest(latent).mul_(code.bool()))

    def _share_gradients_(self, names: Sequence[str], gradients: Mapping[str, Tensor], rule: Gradient) -> None:
        """Give all weights of a cluster one gradient. A weight that is zero keeps its own, by which it may return."""
        clusters = self._clusters(names, gradients, self._codes)
        shared = rule(clusters.sums, clusters.counts)
        check_tensor_answer("gradient(sums, sizes)", rule, shared, clusters.sums.shape)
        for name in names:
            for gradient, code in blocks(gradients[name], self._codes[name]):
                gradient.copy_(torch.where(code == 0, gradient, look_up(shared.to(gradient.dtype), code)))

    def _clusters(self, names: Sequence[str], tensors: Mapping[str, Tensor], codes: Mapping[str, Tensor]) -> Clusters:
        if self.scope == "global" and len(names) < len(self._codes):
            raise ValueError(
                f"need one optimizer that steps all targets for scope='global', got one for {len(names)} of "
                f"{len(self._codes)}, {listed(names)}: use scope='layer', or exclude the parameters that are not "
                "trained"
            )
        group = shard_group([self.targets[name].parameter for name in names])
        sums, counts = cluster_sums(
            [tensors[name] for name in names], [codes[name] for name in names], self.entries + 1, group
        )
        return Clusters(sums, counts)
