"""Pruning during training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_compress.arguments import check_code, check_fraction, check_number
from lightning_compress.processes import each, local, shard_group
from lightning_compress.pruning import criteria
from lightning_compress.pruning.criteria import Criterion, evidence_of
from lightning_compress.pruning.inputs import InputSquares, check_inputs
from lightning_compress.pruning.patterns import Pattern, Unstructured
from lightning_compress.pruning.thresholds import find_threshold, keep
from lightning_compress.schedules import Cubic, Schedule
from lightning_compress.targets import Selection, Target
from lightning_compress.training import PRUNE, WeightCompression

__all__ = ["PruningCallback"]

_WORD = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class PruningCallback(WeightCompression):
    """Set the least important weights to zero during ``fit``, more and more of them, and train the others on.

    The model in the Trainer is the pruned model at every validation and in every checkpoint. After ``fit`` the share of
    zeros over all targets (``scope="global"``) or in each (``"layer"``) is ``sparsity`` within one weight or tile.
    Masks are renewed every ``every_n_steps`` optimizer steps while the schedule ramps, and stay from then on.

    Args:
        sparsity: share of weights to prune, in (0, 1); by default 0.9, or what the pattern prescribes.
        criterion: importance of each weight; see :mod:`~lightning_compress.pruning.criteria`.
        pattern: which weights are pruned together; see :mod:`~lightning_compress.pruning.patterns`.
        scope: rank the weights of all targets against each other, or those of each target among themselves.
        regrow: let pruned weights go on learning behind their masks, so that they may come back, until the end of the
            run (dynamic pruning with feedback). By default they stand still.
        decay: decay of the running mean of scores, for criteria that read gradients or inputs, in [0, 1).
        gradient_scale: factor on the gradients of the weights, above 0, when all of ``sparsity`` is reached; it grows
            from 1 with the schedule. What is left of a very sparse network learns in larger steps; with SGD try 2 at
            95 % zeros, 3 at 98 %. Adam's steps do not depend on it.
        schedule: progress of the run -> fraction of ``sparsity`` that is reached.
        every_n_steps: optimizer steps between two updates of the masks; an update reads all weights twice.
        include: patterns of parameters to prune; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of parameters to leave alone.

    Raises:
        ValueError: an argument is out of its range; in ``fit``, a target does not fit the pattern, two callbacks
            prune one weight, the run's length is not known, or the optimizer is LBFGS.
        TypeError: ``include`` or ``exclude`` is one string; criterion, pattern or schedule a name or a number.

    Papers: Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression",
    https://arxiv.org/abs/1710.01878 (2017); with ``regrow``, Lin et al., "Dynamic Model Pruning with Feedback",
    https://arxiv.org/abs/2006.07253 (2020); for ``gradient_scale``, Dey et al., "Sparse maximal update
    parameterization: A holistic approach to sparse training dynamics", https://arxiv.org/abs/2405.15743 (2024), who
    let learning rates grow with sparsity.

    >>> PruningCallback(sparsity=1.5)
    Traceback (most recent call last):
    ValueError: need 0 < sparsity < 1, got sparsity=1.5
    """

    _inputs: InputSquares | None = None

    def __init__(
        self,
        sparsity: float | None = None,
        *,
        criterion: Criterion = criteria.magnitude,
        pattern: Pattern = Unstructured(),
        scope: Literal["global", "layer"] = "global",
        regrow: bool = False,
        decay: float = 0.9,
        gradient_scale: float = 1.0,
        schedule: Schedule = Cubic(begin=0.15, until=0.7),
        every_n_steps: int = 50,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        super().__init__(order=PRUNE, schedule=schedule, every_n_steps=every_n_steps, include=include, exclude=exclude)
        check_code(criterion=criterion, pattern=pattern)
        if scope not in ("global", "layer"):
            raise ValueError(f"need scope 'global' or 'layer', got scope={scope!r}")
        check_number(decay=decay, gradient_scale=gradient_scale)
        if not 0 <= decay < 1:
            raise ValueError(f"need 0 <= decay < 1, got decay={decay}")
        self.sparsity = _sparsity(sparsity, pattern)
        self.criterion = criterion
        self.pattern = pattern
        self.scope = scope
        self.regrow = regrow
        if not 0 < gradient_scale < math.inf:
            raise ValueError(f"need gradient_scale > 0, got gradient_scale={gradient_scale}")
        self.decay = decay
        self.gradient_scale = gradient_scale

    @property
    def settled(self) -> bool:
        return super().settled and not self.regrow

    @property
    def still(self) -> bool:
        # A criterion that reads gradients scores masked weights too, by their latents.
        return not self.regrow and (self.settled or evidence_of(self.criterion) != "gradient")

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self._masks: dict[str, Tensor] = {}  # all bits set where a weight is kept, in the weight's width
        self._evidence: dict[str, Tensor] = {}  # running mean of scores, or of squared inputs
        self._warned: set[str] = set()
        self.end()
        if selection.targets and evidence_of(self.criterion) == "inputs":
            self._inputs = InputSquares(self.targets)

    def end(self) -> None:
        if self._inputs is not None:
            self._inputs.close()
        self._inputs = None

    def check(self, target: Target) -> None:
        self.pattern.check(target.name, target.shape)
        if target.transposed:  # FSDP2 shards it along its inputs
            self.pattern.check(target.name, target.outputs_first(local(target.parameter)).shape)
        if getattr(target.module, "sparse", False):
            raise ValueError(f"need dense gradients, got {target.name!r} of an embedding with sparse=True: exclude it")
        if evidence_of(self.criterion) == "inputs":
            check_inputs(target)

    def describe(self) -> str:
        criterion = getattr(self.criterion, "__name__", repr(self.criterion))
        return f"{self.sparsity:.4g} sparse by {criterion}, {self.pattern}, {self.scope} scope, {self.schedule}"

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        if self.settled or evidence_of(self.criterion) == "nothing":
            return
        if self._inputs is not None:
            seen = self._inputs.take()
        else:
            turns = {name: self.targets[name].outputs_first for name in gradients}
            scores = {name: self.criterion(turn(latents[name]), turn(gradients[name])) for name, turn in turns.items()}
            seen = {name: turn(scores[name]).float() for name, turn in turns.items()}
        for name, value in seen.items():
            self._evidence.setdefault(name, value.clone()).lerp_(value, 1 - self.decay)

    def update(self, weights: Mapping[str, Tensor]) -> None:
        if evidence_of(self.criterion) != "nothing" and not self._evidence.keys() >= weights.keys():
            unknown = [name for name in weights if name not in self._evidence]
            self.wait_for(evidence_of(self.criterion), unknown, silently=not self._evidence)
            return
        for names in self._groups(weights):
            self._renew_masks(names, weights)

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        for name, mask in self._masks.items():
            if name in weights:
                _mask_(weights[name], mask)

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        if not self.regrow:
            self.project_(gradients)
        if self.gradient_scale != 1 and gradients:
            torch._foreach_mul_(list(gradients.values()), 1 + (self.gradient_scale - 1) * self.strength)

    def forget_(self, memories: Mapping[str, Tensor]) -> None:
        if not self.regrow:
            for name, memory in memories.items():
                _mask_(memory, self._masks[name])

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        for names in self._groups(weights):
            masks = {name: self._masks[name] != 0 for name in names}
            group = shard_group([self.targets[name].parameter for name in names])
            total = sum(each(sum(mask.numel() for mask in masks.values()), group))
            pruned = sum(each(sum(int((~mask).sum()) for mask in masks.values()), group))
            alive = sum(each(sum(int(weights[name][~mask].count_nonzero()) for name, mask in masks.items()), group))
            turned = {name: self.targets[name].outputs_first(mask) for name, mask in masks.items()}
            tile = max(mask.numel() // max(1, self.pattern.units(mask.float()).numel()) for mask in turned.values())
            asked = self.sparsity * self.strength
            if alive or abs(pruned - asked * total) > tile:
                raise RuntimeError(
                    f"need {asked:.4%} of the {total} weights of {', '.join(names)} to be zero, got {pruned - alive}: "
                    f"{pruned} are pruned, of which {alive} are not zero"
                )

    def metrics(self) -> dict[str, float]:
        return {"sparsity": self.sparsity * self.strength}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        masks = {name: mask.bool() for name, mask in self._masks.items()}
        # Squared inputs, one of each, are stored as wide as the weight, so that they are cut and joined as it is.
        evidence = {
            name: value.expand(local(self.targets[name].parameter).shape) for name, value in self._evidence.items()
        }
        return {"masks": masks, "evidence": evidence}

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._masks = {
            name: _word(mask, local(self.targets[name].parameter)) for name, mask in tensors["masks"].items()
        }
        wide = self._inputs is None
        turns = {name: self.targets[name].outputs_first for name in tensors["evidence"]}
        self._evidence = {
            name: (value if wide else turns[name](turns[name](value)[:1])).clone()
            for name, value in tensors["evidence"].items()
        }

    def _groups(self, weights: Mapping[str, Tensor]) -> list[list[str]]:
        """Names of the weights that are ranked against each other."""
        return [list(weights)] if self.scope == "global" else [[name] for name in weights]

    def _scores(self, weights: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """Scores of the pattern's units, a tensor at a time."""
        for name, weight in weights.items():
            turned = self.targets[name].outputs_first
            weight, evidence = turned(weight), turned(self._evidence.get(name, weight.new_empty(0)))
            if evidence_of(self.criterion) == "gradient":
                scores = evidence
            elif evidence_of(self.criterion) == "inputs":
                scores = self.criterion(weight, evidence.sqrt())
            else:
                scores = self.criterion(weight, evidence)
            if scores.shape != weight.shape:
                raise ValueError(
                    f"need a criterion that gives scores of the weight's shape, got {tuple(scores.shape)} for {name!r} "
                    f"of {tuple(weight.shape)}"
                )
            yield self.pattern.units(scores.float())

    def _renew_masks(self, names: Sequence[str], weights: Mapping[str, Tensor]) -> None:
        """Find new masks for the named weights, which compete with each other."""
        mine = {name: weights[name] for name in names}
        group = shard_group([self.targets[name].parameter for name in names])
        threshold = find_threshold(lambda: self._scores(mine), self.sparsity * self.strength, group)
        for name, units in zip(names, keep(self._scores(mine), threshold), strict=True):
            turned = self.targets[name].outputs_first
            kept = turned(self.pattern.spread(units, turned(mine[name]).shape))
            word = self._masks[name] = _word(kept.contiguous(), mine[name])  # in memory as the weight, for speed
            if word.numel() and not word.amin() and name not in self._warned:  # amin is far faster than any
                self._warned.add(name)
                rank_zero_warn(
                    f"every weight of {name!r} is pruned and nothing passes through: add it to exclude, ask for less "
                    "sparsity or prune each layer alike with scope='layer'"
                )


def _word(mask: Tensor, weight: Tensor) -> Tensor:
    """A mask as integers of the weight's width, all bits set where it is True.

    A bitwise and with it gives exact positive zeros whatever stood there, at the speed of a multiplication.
    """
    return -mask.to(_WORD[weight.element_size()])


def _mask_(tensor: Tensor, word: Tensor) -> None:
    if tensor.element_size() == word.element_size():
        tensor.view(word.dtype).bitwise_and_(word)
    else:  # of an optimizer whose memory has another precision than the weights
        tensor.masked_fill_(word == 0, 0)


def _sparsity(sparsity: float | None, pattern: Pattern) -> float:
    if sparsity is None:
        return 0.9 if pattern.sparsity is None else pattern.sparsity
    check_fraction(sparsity=sparsity)
    if pattern.sparsity is not None and sparsity != pattern.sparsity:
        raise ValueError(
            f"need sparsity={pattern.sparsity:g} for pattern={pattern}, got sparsity={sparsity}: leave sparsity out"
        )
    return sparsity
