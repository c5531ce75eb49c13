"""Channel pruning during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from lightning_compress.arguments import check_count, check_criterion, check_flag
from lightning_compress.carried import carry, copies
from lightning_compress.channels import criteria
from lightning_compress.channels.budget.budgets import budget_of, check_blocks, check_shards
from lightning_compress.channels.budget.costs import NO_COSTS, costs_of, narrowed_sizes
from lightning_compress.channels.budget.latencies import fraction_to_keep
from lightning_compress.channels.budget.model_budgets import ModelBudget
from lightning_compress.channels.budget.outcomes import Outcome, timed_outcome
from lightning_compress.channels.budget.runners import Runner, as_shipped, check_runner, eager, measured_in
from lightning_compress.channels.criteria import Criterion, scores_of
from lightning_compress.channels.dependencies.discovery import discover
from lightning_compress.channels.dependencies.removable import Removable
from lightning_compress.channels.groups import Group, removed_entries, with_followers
from lightning_compress.channels.masks import Masks, masked_targets, masks_of, whole_parts
from lightning_compress.channels.removal.shapes import CHANNELS, verify_shapes
from lightning_compress.channels.removal.surgery import narrow, narrowed_copy, remove_units_
from lightning_compress.evidence import RunningMeans, check_evidence_decay, evidence_of
from lightning_compress.example_inputs import check_example_input, first_batch
from lightning_compress.lightnings import LightningModule, ModelParallelStrategy, Trainer, isolate_rng, rank_zero_info
from lightning_compress.processes import from_rank_zero
from lightning_compress.schedules import Cubic, Schedule
from lightning_compress.targets import Selection, Target
from lightning_compress.training import PRUNE, WeightCompression
from lightning_compress.training.copies import uncompiled
from lightning_compress.training.endings.results import tell
from lightning_compress.training.interplay.followers import FollowingNetworks, followers_text
from lightning_compress.training.replacements import replaces
from lightning_compress.training.run import CompressionRun

__all__ = ["ChannelPruningCallback"]


class ChannelPruningCallback(WeightCompression):
    """Remove the least important channels during ``fit``: mask more and more of them, then shrink the tensors.

    While the schedule ramps, whole channels are held at zero in all coupled layers: their row in the weight that
    produces them, their bias and batch normalization, their column in every weight that consumes them. The model in the
    Trainer is the pruned model at every validation and in every checkpoint. The channels of the output, and channels
    that a layer normalizes over, are left alone; attention is pruned by heads.

    Args:
        macs: fraction of the multiply-accumulates of linear and convolution layers to keep, in (0, 1); 0.5 by default.
        parameters: instead of ``macs``, fraction of the parameters to keep, in (0, 1).
        latency: instead of ``macs``, fraction of the latency to keep, in (0, 1): of a forward pass of ``example_input``
            in ``runtime``. When ``fit`` starts, copies of different widths are timed, quantized if a ``QATCallback``
            stands beside; the widest that is fast enough gives the MACs to keep. At the end the model is timed again.
        runtime: where latency is measured, for ``latency``: PyTorch on the device of the model by default, in float, or
            a runtime of ``deploy.runtimes``, such as ``OnnxRuntime()``, which runs files of the copies on a CPU thread.
        channels: instead of ``macs``, fraction of the channels of every layer to keep, in (0, 1).
        criterion: importance of channels; see :mod:`~lightning_compress.channels.criteria`.
        round_to: every layer keeps a multiple of this number of channels; runtimes are slow at odd numbers.
        remove: remove the channels when the schedule has ended. Otherwise they stay as zeros, as they always do under
            strategies that spawn processes or shard parameters (FSDP2); ``remove_zero_channels`` removes them.
        remove_blocks: also remove residual branches whole: the block becomes its shortcut plus a constant. Fewer layers
            take less time than narrower ones. Otherwise every layer keeps at least ``round_to`` channels.
        decay: decay of the running mean of scores, in [0, 1), for criteria that read gradients; refused with others.
        example_input: input of ``forward``: a tensor, a tuple or a mapping of its arguments. By default
            ``module.example_input_array``, or the first examples of the training data; of a stream, its first batch.
        schedule: progress of the run -> strength, the fraction of the reduction that is reached.
        every_n_steps: optimizer steps between two choices of channels.
        include: patterns of layers whose channels may be removed; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of layers whose output channels stay.

    Raises:
        ImportError: in ``fit``, torch-pruning is not installed (extra ``channels``).
        ValueError: an argument is out of range; before the first step, the budget is out of reach, or ``forward`` takes
            no input that the data holds.
        TypeError: an argument is of another kind, or the criterion scores no channels.

    Papers: Fang et al., "DepGraph: Towards Any Structural Pruning", https://arxiv.org/abs/2301.12900 (2023); He et al.,
    "Soft Filter Pruning for Accelerating Deep Convolutional Neural Networks", https://arxiv.org/abs/1808.06866 (2018).

    >>> ChannelPruningCallback(macs=0.0)
    Traceback (most recent call last):
    ValueError: need 0 < macs < 1, got macs=0.0
    """

    changeable = WeightCompression.changeable | {"decay", "example_input", "runtime"}
    asker = "ChannelPruningCallback"  # the callback with the budget among its arguments

    def __init__(
        self,
        macs: float | None = None,
        *,
        parameters: float | None = None,
        latency: float | None = None,
        channels: float | None = None,
        runtime: Runner = eager,
        criterion: Criterion = criteria.magnitude,
        round_to: int = 16,
        remove: bool = True,
        remove_blocks: bool = False,
        decay: float = 0.9,
        example_input: Any = None,
        schedule: Schedule = Cubic(begin=0.15, until=0.7),
        every_n_steps: int = 10,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        super().__init__(order=PRUNE, schedule=schedule, every_n_steps=every_n_steps, include=include, exclude=exclude)
        check_criterion(criterion, criteria, "members")
        if evidence_of(criterion) == "inputs":
            raise ValueError(f"need a criterion that reads the gradient or nothing, got inputs by {criterion!r}")
        self.budget = budget_of(macs, parameters, latency, channels)
        check_runner(runtime, self.budget)
        check_flag(remove=remove, remove_blocks=remove_blocks)
        check_blocks(self.budget, remove_blocks)
        check_count(round_to=round_to)
        check_evidence_decay(ChannelPruningCallback, decay, criterion)
        if example_input is not None:
            check_example_input(example_input)
        self.macs = self.budget.amount if self.budget.name == "macs" else None
        self.parameters, self.latency, self.channels, self.runtime = parameters, latency, channels, runtime
        self.criterion, self.decay, self.example_input = criterion, decay, example_input
        self.round_to, self.remove, self.remove_blocks = round_to, remove, remove_blocks
        self._reset()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        carry(pl_module, CHANNELS)
        if stage == "fit":
            self._reset()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(trainer.strategy, ModelParallelStrategy):
            check_shards(self.budget, trainer.strategy.device_mesh["tensor_parallel"].size())
        self._removes_in_fit = self.remove and replaces(
            trainer.strategy, self, "channels stay as zeros", "remove_zero_channels"
        )
        super().on_fit_start(trainer, pl_module)

    def _reset(self) -> None:
        self._found: Removable | None = None
        self._example: Any = None
        self._following, self.outcome = FollowingNetworks(nn.Module()), Outcome(self.budget, self.asker)
        self._budget = ModelBudget(self.budget, self.budget.amount, (), NO_COSTS, self.round_to)

    def awaits_batch(self, module: nn.Module) -> bool:
        if self._given_example(module) is not None or self._saved("found"):
            return False
        with isolate_rng():
            self.batch = first_batch(module.trainer)
        return self.batch is None

    def _given_example(self, module: nn.Module) -> Any:
        return getattr(module, "example_input_array", None) if self.example_input is None else self.example_input

    def _saved(self, key: str) -> Any:
        """The entry of the checkpoint that is resumed; None if there is none."""
        return None if self._loaded is None else self._loaded.get(key)

    def select(self, module: nn.Module) -> Selection:
        if saved := self._saved("found"):  # the first batch of the resumed run may have other shapes
            found, fraction = Removable.from_state(saved), self._saved("fraction")
            costs = costs_of(module, found.prices)
        else:
            with isolate_rng():
                runner = as_shipped(self.runtime, self.company)
                example, found = discover(module, self._given_example(module), self.batch, self.remove_blocks)
                # The same on every rank, whose batches may differ.
                found = from_rank_zero(found.chosen(module, self.include, self.exclude))
                costs, model = costs_of(module, found.prices), (runner, uncompiled(module), example)
                fraction = fraction_to_keep(self.budget, *model, found.groups, costs, self.round_to)
                self._example = example if self.budget.name == "latency" else None
        self._found = found
        self._budget = ModelBudget(self.budget, fraction, found.groups, costs, self.round_to)
        if self._budget.is_met:
            self._budget = replace(self._budget, groups=())
        elif not saved:
            self._budget.check_reach(found.left_alone, self.remove_blocks)
        self._following = FollowingNetworks(module, self._saved("written") or ())
        return Selection(masked_targets(module, self._budget.groups), dict(found.left_alone))

    takes_up = compresses_sums = False  # the groups of channels are those of the first trace, without adapters

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self._masks = Masks()
        self._evidence = RunningMeans()  # group -> mean of its scores

    def check(self, target: Target) -> None:
        return

    def describe(self) -> str:
        criterion = getattr(self.criterion, "__name__", repr(self.criterion))
        blocks = ", or whole residual branches" if self.remove_blocks else ""
        method = f"{self._budget} by {criterion}, channels in multiples of {self.round_to}{blocks}, {self.schedule}"
        return f"{method}{measured_in(self.budget, as_shipped(self.runtime, self.company), self.company)}"

    def narrowed_copy(self, module: nn.Module) -> nn.Module:
        """A copy of ``module``, which this method has begun on, without the channels of least magnitude."""
        return self._budget.narrowed_copy(module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_end(trainer, pl_module)
        if self.strength == 1.0 and self.budget.name != "channels":  # else the run warns
            self.outcome = self._reached(pl_module)
            tell(self.outcome.result, self.outcome.missed)

    def _reached(self, module: LightningModule) -> Outcome:
        if self.budget.name != "latency":
            return Outcome(self.budget, self.asker, self.metrics()[self.budget.name])
        example = self._given_example(module) if self._example is None else self._example
        with isolate_rng():
            narrowed = narrowed_copy(module, self._budget.groups, self._masks.units)
            batch, runner = first_batch(module.trainer), as_shipped(self.runtime, self.company)
            return timed_outcome(self.budget, self.asker, narrowed, example, batch, runner)

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        if self.settled or evidence_of(self.criterion) == "nothing":
            return
        groups = [group for group in self._budget.groups if group.is_produced_by(gradients)]  # others are frozen
        self._evidence.observe({group.name: self._score(group, latents, gradients) for group in groups})

    def stepped(self) -> None:
        self._evidence.join(self.decay)

    def update(self, weights: Mapping[str, Tensor]) -> None:
        unknown = [group.name for group in self._budget.groups if group.name not in self._evidence]
        if evidence_of(self.criterion) == "gradient" and unknown:
            self.wait_for("gradients", unknown, silently=not self._evidence)
            return
        scores = self._evidence or {group.name: self._score(group, weights, {}) for group in self._budget.groups}
        self._mask(self._budget.choose(scores, self.strength))

    def _score(self, group: Group, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> Tensor:
        whole_weights, whole_gradients = (whole_parts(group, tensors, self.targets) for tensors in (weights, gradients))
        return scores_of(self.criterion, group, whole_weights, whole_gradients)

    def _mask(self, units: Mapping[str, Tensor]) -> None:
        parameters = {name: target.parameter for name, target in self.targets.items()}
        self._masks = masks_of(self._budget.groups, units, parameters, self._budget.costs.sizes)

    @property
    def outlives_later_projections(self) -> bool:
        return True  # every projection keeps zeros

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        self._masks.apply_(weights)

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        self._masks.apply_(gradients)

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        self._masks.verify(weights)
        self._budget.verify(self._masks, self.strength)

    def metrics(self) -> dict[str, float]:
        return {name: self._budget.left(self._masks, name) for name in ("macs", self._budget.unit_of_cost)}

    def report(self) -> dict[str, object]:
        # After removal the number of targeted weights says nothing any more.
        return {"method": self.describe(), "strength": self.strength, **self.metrics(), **self.outcome.report()}

    def state_dict(self) -> dict[str, Any]:
        found = None if self._found is None else self._found.state()
        own = {"masked": dict(self._masks.units), "evidence": dict(self._evidence), "fraction": self._budget.fraction}
        return {**super().state_dict(), **own, "found": found, "written": self._following.written}

    def restore(self) -> None:
        state = self._loaded
        super().restore()
        if state is not None:
            self._evidence = RunningMeans(state["evidence"])
            self._mask(state["masked"])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *rest)
        if self._run and self._removes_in_fit and self._budget.groups and self.strength == 1.0:
            self._remove_masked(self._run, trainer, pl_module)

    def _remove_masked(self, run: CompressionRun, trainer: Trainer, module: LightningModule) -> None:
        """Remove the masked channels from the model and from all tensors that have an entry for them."""
        branches = sum(group.removes_branch(self._masks.units) for group in self._budget.groups)
        followed = self._following.followed()
        groups, units = with_followers(self._budget.groups, self._masks.units, followed)
        entries, sizes = removed_entries(groups, units), self._budget.costs.sizes
        planned = narrowed_sizes(sizes, entries, masks_of(groups, units, {}, sizes).branch_parameters)
        replaced = remove_units_(module, groups, units, trainer.optimizers, copies(module))
        verify_shapes(module, planned)
        self._budget = replace(self._budget, groups=(), costs=replace(self._budget.costs, sizes=planned))
        self._found = self._found and replace(self._found, groups=())
        self.begin(Selection((), dict(self.skipped)))
        self.strength = 1.0
        run.replace(replaced, lambda name, tensor: narrow(tensor, entries[name]))
        removed = f"channels and {branches} residual branches" if branches else "channels"
        rank_zero_info(
            f"{type(self).__name__}: {removed} removed, {self.metrics()['macs']:.4g} of the MACs are left"
            + followers_text(followed, self._following.left_behind())
        )
