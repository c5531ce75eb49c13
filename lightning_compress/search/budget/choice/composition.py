"""Composition: zeros and shared values as one projection, whose amounts are given while it runs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.distributed.tensor import DTensor

from lightning_compress.pruning import PruningCallback
from lightning_compress.sharing import WeightSharingCallback
from lightning_compress.targets import Selection, Target
from lightning_compress.training import WeightCompression

__all__ = ["Composition", "check"]


def check(target: Target) -> None:
    """Refuse a shard, a frozen target, or one that cannot be pruned or share values; see :meth:`Method.check`."""
    if isinstance(target.parameter, DTensor):
        raise ValueError(
            f"need whole parameters to measure the file, got {target.name!r}, which FSDP2 shards: use a single "
            "device or DDP, or PruningCallback and WeightSharingCallback"
        )
    if target.is_frozen_base:
        raise ValueError(
            f"need weights with gradients to choose by, got {target.name!r}, which is frozen beside an adapter: "
            "exclude it, or use PruningCallback and WeightSharingCallback"
        )
    for method in (PruningCallback(), WeightSharingCallback()):
        method.check(target)


class Composition:
    """Prunes weights, then lets those of each layer share values: ``share(prune(latent))``.

    Without zeros nothing is pruned, and without values nothing is shared.

    Args:
        targets: name -> parameter.
    """

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = targets
        self._pruning: PruningCallback | None = None
        self._sharing: dict[int, WeightSharingCallback] = {}  # by the number of values
        self._strengths = 0.0, 0.0

    @property
    def methods(self) -> list[WeightCompression]:
        """The methods that project the weights now, in the order of projection."""
        return [*([] if self._pruning is None else [self._pruning]), *self._sharing.values()]

    @property
    def masks_in_place(self) -> bool:
        """Whether the weights are masked and nothing else."""
        return self._pruning is not None and self._pruning.masks_in_place and not self._sharing

    def kept(self, name: str) -> Tensor | None:
        """True for each entry of a target that is not masked; None if none is."""
        return None if self._pruning is None else self._pruning.kept(name)

    def reset(self) -> None:
        """Forget zeros and values."""
        self._pruning, self._sharing = None, {}

    def prune(self, zeros: float) -> None:
        """Set the fraction of zeros over all targets, in [0, 1); the next update masks accordingly."""
        if self._pruning is None and zeros:
            self._pruning = PruningCallback(zeros)
            self._pruning.begin(Selection(tuple(self._targets.values()), {}))
        if self._pruning is not None:
            self._pruning.sparsity = zeros
        self.strengthen(*self._strengths)

    def share(self, values: Mapping[str, int]) -> None:
        """Set the number of distinct values of each target, zero included; 0 leaves it with its floats."""
        self._sharing = {}
        for number in sorted(set(values.values()) - {0}):
            targets = tuple(target for name, target in self._targets.items() if values[name] == number)
            self._sharing[number] = WeightSharingCallback(number)
            self._sharing[number].begin(Selection(targets, {}))
        self.strengthen(*self._strengths)

    def strengthen(self, pruning: float, sharing: float) -> None:
        """Set the strengths of both, in [0, 1]."""
        self._strengths = pruning, sharing
        for method in self.methods:
            method.strength = pruning if method is self._pruning else sharing

    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Compute masks and codebooks for the present strengths."""
        pruned = self.pruned(weights)
        for method in self._sharing.values():
            method.update(_of(method, pruned))

    def pruned(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of the weights, with zeros by new masks."""
        pruned = {name: weight.clone() for name, weight in weights.items()}
        if self._pruning is not None:
            self._pruning.update(weights)
            self._pruning.project_(pruned)
        return pruned

    def share_(self, pruned: Mapping[str, Tensor]) -> None:
        """Overwrite pruned weights by the values that they share, in place."""
        for method in self._sharing.values():
            method.project_(_of(method, pruned))

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite each weight by its projection, in place."""
        if self._pruning is not None:
            self._pruning.project_(weights)
        self.share_(weights)

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        """Turn gradients at the projected weights into those of the latents, in place."""
        for method in reversed(self.methods):
            method.backward_(_of(method, gradients), _of(method, latents))

    def forget_(self, memories: Mapping[str, Tensor]) -> None:
        """Clear momentum of masked weights."""
        for method in self.methods:
            method.forget_(_of(method, memories))

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """Read latents and gradients before an optimizer steps."""
        for method in self.methods:
            method.observe(_of(method, latents), _of(method, gradients))

    def stepped(self) -> None:
        """Take over what the last step has changed."""
        for method in self.methods:
            method.stepped()

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        """Raise RuntimeError if the weights have other zeros, or more distinct values, than was set."""
        for method in self.methods:
            method.verify(_of(method, weights))

    def metrics(self) -> dict[str, float]:
        """Numbers to log, by name."""
        return {} if self._pruning is None else self._pruning.metrics()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """State for a checkpoint: kind -> parameter name -> tensor."""
        pruning = {} if self._pruning is None else self._pruning.tensors()
        codes = {name: codes for method in self._sharing.values() for name, codes in method.tensors()["codes"].items()}
        return {**pruning, "codes": codes}

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]], targets: Mapping[str, Target]) -> None:
        """Restore the state that :meth:`tensors` gave, for these targets, once zeros and values are set."""
        self._targets = targets
        for method in self.methods:
            method.targets = {name: targets[name] for name in method.targets if name in targets}
            method.load_tensors({kind: _of(method, named) for kind, named in tensors.items()})


def _of(method: WeightCompression, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name in method.targets}
