"""Pruning during training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from lightning_compress.arguments import check_code, check_criterion, check_flag, check_positive
from lightning_compress.evidence import RunningMeans, check_evidence_decay, evidence_of
from lightning_compress.lightnings import rank_zero_warn
from lightning_compress.messages import listed
from lightning_compress.processes import gather_numbers, local, shard_group, shard_shape
from lightning_compress.pruning import criteria
from lightning_compress.pruning.criteria import Criterion
from lightning_compress.pruning.floors import check_floor, described, floor_of, kept_units
from lightning_compress.pruning.layer_inputs import InputSquares, check_inputs
from lightning_compress.pruning.masks import apply_, counts, densities, mask_of
from lightning_compress.pruning.patterns import Pattern, Unstructured, sparsity_of
from lightning_compress.pruning.scores import check_scores, spread, unit_scores, weights_in_unit
from lightning_compress.schedules import Cubic, Schedule
from lightning_compress.targets import Selection, Target
from lightning_compress.training import PRUNE, WeightCompression

__all__ = ["PruningCallback"]


class PruningCallback(WeightCompression):
    """Mask the least important weights during ``fit``, more of them as the schedule advances, and train the others.

    The model in the Trainer is the pruned model at every validation and in every checkpoint. After ``fit`` the fraction
    of zeros over all targets (``scope="global"``) or in each target (``"layer"``) is ``sparsity``, within one weight or
    one block. The masks change while the schedule ramps and are then fixed; with ``regrow`` they change until the end.

    Args:
        sparsity: fraction of the weights that are masked, in (0, 1); 0.9 by default, or the sparsity of the pattern.
        criterion: function that scores the weights; see :mod:`~lightning_compress.pruning.criteria`.
        pattern: weights that are masked together; see :mod:`~lightning_compress.pruning.patterns`.
        scope: whether the weights of all targets have one threshold (``"global"``) or each target has its own
            (``"layer"``).
        floor: least fraction of the weights of each target that stays in global scope, in [0, 1); by default (None)
            three tenths of the fraction that stays on average. The sparsity over all targets stays exact. A
            ``sparsity`` above ``1 - floor`` counts instead. Refused in layer scope, and with patterns of one sparsity.
        regrow: train the latents of masked weights too, with the gradient of the pruned model, until the end of the
            run. A weight that has become important again is unmasked (dynamic pruning with feedback). By default masked
            weights do not change.
        decay: decay of the running mean of scores, in [0, 1), for criteria that read gradients or inputs; refused with
            others.
        gradient_scale: factor, above 0, that multiplies the gradients at full sparsity; it moves there from 1 with the
            schedule. The weights that remain in a sparse layer train better with larger steps: by default (None) the
            factor of each target is ``density ** -0.25``, where the density is the fraction of its weights that remain.
            Write 1.0 for the gradients as they are. The steps of Adam do not depend on the factor.
        schedule: progress of the run -> fraction of ``sparsity`` that is reached.
        every_n_steps: optimizer steps between two updates of the masks. An update reads all weights twice, so it is
            too expensive for every step.
        include: patterns of the parameters to prune; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of the parameters to leave alone.

    Raises:
        ValueError: an argument is out of its range; in ``fit``, a target that ``include`` names does not fit the
            pattern, two callbacks prune one weight, the length of the run is unknown, or the optimizer is LBFGS.
        TypeError: an argument is of another kind: a number as text, a class instead of an object, a criterion of
            another method, one string instead of a sequence of patterns.

    Papers: Zhu and Gupta, "To prune, or not to prune", https://arxiv.org/abs/1710.01878 (2017); for ``regrow``, Lin et
    al., "Dynamic Model Pruning with Feedback", https://arxiv.org/abs/2006.07253 (2020); for ``gradient_scale``, Dey et
    al., "Sparse maximal update parameterization", https://arxiv.org/abs/2405.15743 (2024).

    >>> PruningCallback(sparsity=1.5)
    Traceback (most recent call last):
    ValueError: need 0 < sparsity < 1, got sparsity=1.5
    """

    changeable = WeightCompression.changeable | {"decay", "gradient_scale"}
    _inputs: InputSquares | None = None

    def __init__(
        self,
        sparsity: float | None = None,
        *,
        criterion: Criterion = criteria.magnitude,
        pattern: Pattern = Unstructured(),
        scope: Literal["global", "layer"] = "global",
        floor: float | None = None,
        regrow: bool = False,
        decay: float = 0.9,
        gradient_scale: float | None = None,
        schedule: Schedule = Cubic(begin=0.15, until=0.7),
        every_n_steps: int = 50,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        super().__init__(order=PRUNE, schedule=schedule, every_n_steps=every_n_steps, include=include, exclude=exclude)
        check_code(pattern=pattern)
        check_criterion(criterion, criteria, "weight", "evidence")
        if not isinstance(pattern, Pattern):
            raise TypeError(f"need pattern as a Pattern of pruning.patterns, got {pattern!r}: inherit from Pattern")
        if scope not in ("global", "layer"):
            raise ValueError(f"need scope 'global' or 'layer', got scope={scope!r}")
        check_flag(regrow=regrow)
        check_floor(PruningCallback, floor, scope, pattern)
        check_evidence_decay(PruningCallback, decay, criterion)
        if gradient_scale is not None:
            check_positive(gradient_scale=gradient_scale)
        self.sparsity = sparsity_of(sparsity, pattern)
        self.criterion = criterion
        self.pattern = pattern
        self.scope = scope
        self.floor = floor
        self.regrow = regrow
        self.decay = decay
        self.gradient_scale = gradient_scale

    @property
    def settled(self) -> bool:
        return super().settled and not self.regrow and not self.postponed

    @property
    def postponed(self) -> bool:
        # Weights that have joined wait for the evidence of their scores.
        return bool(self._masks) and self._masks.keys() != self.targets.keys()

    @property
    def outlives_later_projections(self) -> bool:
        return True  # every projection keeps zeros

    @property
    def masks_in_place(self) -> bool:
        # Criteria that read gradients score masked weights too, by their latents.
        return not self.regrow and (self.settled or evidence_of(self.criterion) != "gradient")

    def kept(self, name: str) -> Tensor | None:
        return self._masks[name] != 0 if name in self._masks else None

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self._masks: dict[str, Tensor] = {}
        self._densities: dict[str, float] = {}
        self._evidence = RunningMeans()  # of the scores, or of the squared inputs
        self._warned: set[str] = set()
        self.end()
        if selection.targets and evidence_of(self.criterion) == "inputs":
            self._inputs = InputSquares(self.targets)

    def end(self) -> None:
        if self._inputs is not None:
            self._inputs.close()
        self._inputs = None

    def misfit(self, target: Target) -> str:
        try:
            self.pattern.check(target.name, target.shape)
        except ValueError:
            return f"its shape does not fit {self.pattern}"
        return ""

    def check(self, target: Target) -> None:
        self.pattern.check(target.name, target.shape)
        shard = shard_shape(target.parameter)  # each process masks its own shard
        self.pattern.check(f"a shard of {target.name}", shard[::-1] if target.transposed else shard)
        if getattr(target.module, "sparse", False):
            raise ValueError(f"need dense gradients, got {target.name!r} of an embedding with sparse=True: exclude it")
        if evidence_of(self.criterion) == "inputs":
            check_inputs(target)
        if evidence_of(self.criterion) == "gradient" and target.is_frozen_base:
            raise ValueError(
                f"need a criterion that reads no gradients for {target.name!r}, a frozen weight with an adapter, which "
                f"has none: choose criteria.magnitude or criteria.wanda, or exclude it"
            )

    def describe(self) -> str:
        criterion = getattr(self.criterion, "__name__", repr(self.criterion))
        return f"{self.sparsity:.4g} sparse by {criterion}, {self.pattern}, {self._scope()}, {self.schedule}"

    def _scope(self) -> str:
        floor = floor_of(self.floor, self.sparsity, self.scope, self.pattern)
        return f"{self.scope} scope" + (f" (every target keeps {described(floor, self.sparsity)})" if floor else "")

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        if self.settled or evidence_of(self.criterion) == "nothing":
            return
        if self._inputs is not None:
            self._evidence.observe(self._inputs.take())
        else:
            self._evidence.observe({n: self._gradient_scores(n, latents[n], g) for n, g in gradients.items()})

    def stepped(self) -> None:
        self._evidence.join(self.decay)

    def update(self, weights: Mapping[str, Tensor]) -> None:
        if evidence_of(self.criterion) != "nothing" and not self._evidence.keys() >= weights.keys():
            unknown = [name for name in weights if name not in self._evidence]
            if self._masks:
                return
            self.wait_for(evidence_of(self.criterion), unknown, silently=not self._evidence)
            return
        for names in self._competitors(weights):
            self._update_masks({name: weights[name] for name in names})

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        apply_(self._masks, weights)

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        if not self.regrow:
            apply_(self._masks, gradients)
        if self._masks and gradients and self.gradient_scale != 1:
            torch._foreach_mul_(list(gradients.values()), [self._gradient_scale(name) for name in gradients])

    def forget_(self, memories: Mapping[str, Tensor]) -> None:
        if not self.regrow:
            apply_(self._masks, memories)

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        for names in self._competitors(weights):
            group = shard_group([self.targets[name].parameter for name in names])
            whole = {name: self.targets[name].outputs_first(weights[name]) for name in names}
            found = zip(*(row for name in names for row in self._counts(name, whole[name])), strict=True)
            total, masked, alive, broken = (sum(gather_numbers(sum(numbers), group)) for numbers in found)
            unit = max(weights_in_unit(weight, self.pattern) for weight in whole.values())
            asked = self.sparsity * self.strength
            if alive or abs(masked - asked * total) > unit:
                raise RuntimeError(
                    f"need {asked:.4%} of the {total} weights of {listed(names)} to be zero, got {masked - alive}: "
                    f"{masked} are masked, of which {alive} are not zero"
                )
            if broken:
                raise RuntimeError(f"need zeros in {self.pattern} in {listed(names)}, got {broken} broken groups")

    def metrics(self) -> dict[str, float]:
        return {"sparsity": self.sparsity * self.strength}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        masks = {name: mask.bool() for name, mask in self._masks.items()}
        # Squared inputs are stored in the shape of the weight, so that they are sharded and narrowed as the weight is.
        evidence = {
            name: value.expand(local(self.targets[name].parameter).shape) for name, value in self._evidence.items()
        }
        return {"masks": masks, "evidence": evidence}

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._masks = {
            name: mask_of(kept, local(self.targets[name].parameter)) for name, kept in tensors["masks"].items()
        }
        self._densities = {}
        self._evidence = RunningMeans()
        for name, value in tensors["evidence"].items():
            outputs_first = self.targets[name].outputs_first
            stored = value if self._inputs is None else outputs_first(outputs_first(value)[:1])
            self._evidence[name] = stored.clone()

    def _gradient_scale(self, name: str) -> float:
        """The factor of the gradient of a target; by default a collective after each change of the masks."""
        if self.gradient_scale is not None:
            return 1 + (self.gradient_scale - 1) * self.strength
        if not self._densities:
            self._densities = densities(self._masks, {name: self.targets[name].parameter for name in self._masks})
        return float(max(self._densities.get(name, 1.0), 1e-4) ** -0.25)  # at most 10: a layer may be masked whole

    def _competitors(self, weights: Mapping[str, Tensor]) -> list[list[str]]:
        """Names of the weights with a common threshold."""
        return [list(weights)] if self.scope == "global" else [[name] for name in weights]

    def _update_masks(self, weights: Mapping[str, Tensor]) -> None:
        """Find new masks for weights with a common threshold."""
        self._densities = {}
        group = shard_group([self.targets[name].parameter for name in weights])
        asked, floor = self.sparsity * self.strength, floor_of(self.floor, self.sparsity, self.scope, self.pattern)
        kept = kept_units(lambda name: self._units(name, weights[name]), list(weights), asked, floor, group)
        for name in weights:
            outputs_first = self.targets[name].outputs_first
            entries = outputs_first(spread(self.pattern, kept.pop(name), outputs_first(weights[name]).shape))
            mask = self._masks[name] = mask_of(entries.contiguous(), weights[name])  # the weight's layout, for speed
            if mask.numel() and not mask.amin() and name not in self._warned:  # amin is much faster than any
                self._warned.add(name)
                rank_zero_warn(
                    f"every weight of {name!r} is masked, so its layer passes no signal: add it to exclude, lower "
                    "sparsity, or leave floor= out, which keeps a fraction of every target"
                )

    def _units(self, name: str, weight: Tensor) -> Iterator[Tensor]:
        """Scores of the units of the pattern."""
        outputs_first = self.targets[name].outputs_first
        evidence = outputs_first(self._evidence.get(name, weight.new_empty(0)))
        return unit_scores(name, outputs_first(weight), evidence, self.criterion, self.pattern)

    def _gradient_scores(self, name: str, weight: Tensor, gradient: Tensor) -> Tensor:
        outputs_first = self.targets[name].outputs_first
        scores = self.criterion(outputs_first(weight), outputs_first(gradient))
        check_scores(name, scores, outputs_first(weight), self.criterion)
        return outputs_first(scores).float()

    def _counts(self, name: str, weight: Tensor) -> Iterator[tuple[int, int, int, int]]:
        mask = self.targets[name].outputs_first(self._masks[name]) if name in self._masks else None
        return counts(weight, mask, self.pattern, self.strength)
