"""Channel pruning during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_compress.arguments import check_code, check_count, check_criterion, check_number
from lightning_compress.carried import carry, copies
from lightning_compress.channels import criteria
from lightning_compress.channels.budget.budgets import Costs, budget_of
from lightning_compress.channels.budget.latencies import macs_in_time
from lightning_compress.channels.budget.reductions import Reduction
from lightning_compress.channels.criteria import Criterion, members
from lightning_compress.channels.cutting import shapes
from lightning_compress.channels.cutting.shapes import CHANNELS
from lightning_compress.channels.cutting.surgery import narrow, remove_
from lightning_compress.channels.dependencies.trials import make_plan
from lightning_compress.channels.groups import Dropped, Group, dropped, mask_, sizes_of
from lightning_compress.evidence import evidence_of
from lightning_compress.example_inputs import first_examples
from lightning_compress.processes import copy_without_weights, gather, is_sharded, local_positions
from lightning_compress.schedules import Cubic, Schedule
from lightning_compress.targets import Selection, Target, select
from lightning_compress.training import PRUNE, WeightCompression
from lightning_compress.training.run import CompressionRun, eager, fixed_shapes

__all__ = ["ChannelPruningCallback"]


class ChannelPruningCallback(WeightCompression):
    """Remove the least important channels during ``fit``: first masked, more and more of them, then cut out for good.

    While the schedule ramps, whole channels are held at zero: their row in the weight that produces them, their bias
    and batch normalisation, their column in every weight that consumes them, in all layers that share them. The model
    in the Trainer is the pruned model at every validation and in every checkpoint. The channels of the output, and
    channels that a layer normalises over, are left alone; attention is pruned by heads.

    Args:
        macs: fraction of the multiply-accumulate operations of linear and convolution layers to keep, in (0, 1); 0.5
            if no other budget is given.
        parameters: instead of ``macs``, fraction of the parameters to keep, in (0, 1).
        latency: instead of ``macs``, fraction of the latency to keep, in (0, 1): that of the forward pass of
            ``example_input`` in evaluation mode, as torch runs it on the device of the model. When ``fit`` starts,
            copies of different widths are timed; the widest that is fast enough gives the MACs to keep.
        channels: instead of ``macs``, fraction of the channels of every layer to keep, in (0, 1), to the nearest
            multiple of ``round_to``.
        criterion: importance of channels; see :mod:`~lightning_compress.channels.criteria`.
        round_to: channels of a layer stay in multiples of this number; runtimes are slow at odd counts.
        remove: cut the channels out when the schedule has ended; otherwise they stay as zeros, which
            :func:`~lightning_compress.channels.remove_zero_channels` cuts out after ``fit``. Strategies that spawn
            their processes or shard the parameters (FSDP2) leave zeros in any case, and say so.
        remove_blocks: whether all inner channels of a residual branch may go, and its layers with them: what is left of
            the block is its shortcut plus a constant. Fewer layers take less time than narrower ones. Otherwise at
            least ``round_to`` channels of every layer stay.
        decay: decay of the running mean of scores, for criteria that read gradients, in [0, 1).
        example_input: what ``forward`` takes: one argument, a tuple of arguments, or a dict of keyword arguments. By
            default ``module.example_input_array``, or the first examples of the training data.
        schedule: progress of the run -> fraction of the reduction that is reached.
        every_n_steps: optimizer steps between two choices of channels.
        include: patterns of the layers whose output channels may go; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of layers whose output channels stay.

    Raises:
        ImportError: in ``fit``, torch-pruning is not installed (extra ``channels``).
        ValueError: an argument is out of its range; in ``fit``, the asked reduction cannot be reached, or no example
            input is found.
        TypeError: ``include`` or ``exclude`` is one string; criterion or schedule a name or a number, or the criterion
            is none of channels.

    Papers: Fang et al., "DepGraph: Towards Any Structural Pruning", https://arxiv.org/abs/2301.12900 (2023); He et al.,
    "Soft Filter Pruning for Accelerating Deep Convolutional Neural Networks", https://arxiv.org/abs/1808.06866 (2018).

    >>> ChannelPruningCallback(macs=0.0)
    Traceback (most recent call last):
    ValueError: need 0 < macs < 1, got macs=0.0
    """

    _reduction: Reduction
    _share: float | None = None  # of the budget, once it is known

    def __init__(
        self,
        macs: float | None = None,
        *,
        parameters: float | None = None,
        latency: float | None = None,
        channels: float | None = None,
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
        check_code(criterion=criterion)
        check_criterion(criterion, criteria, "members")
        if evidence_of(criterion) == "inputs":
            raise ValueError(f"need a criterion that reads the gradient or nothing, got inputs by {criterion!r}")
        self.budget = budget_of(macs, parameters, latency, channels)
        if remove_blocks and self.budget.name == "channels":
            raise ValueError(
                "need macs, parameters or latency with remove_blocks=True, got "
                f"channels={self.budget.amount}, which keeps the same fraction of every layer"
            )
        check_count(round_to=round_to)
        check_number(decay=decay)
        if not 0 <= decay < 1:
            raise ValueError(f"need 0 <= decay < 1, got decay={decay}")
        self.criterion = criterion
        self.round_to = round_to
        self.remove_blocks = remove_blocks
        self.remove = remove
        self.decay = decay
        self.example_input = example_input

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        carry(pl_module, CHANNELS)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(trainer.strategy, ModelParallelStrategy):
            self._check_shards(trainer.strategy)
        obstacle = fixed_shapes(trainer.strategy)
        self._removes = self.remove and not obstacle
        if self.remove and obstacle:
            rank_zero_warn(
                f"{type(self).__name__}: channels stay as zeros, because {obstacle}; call remove_zero_channels after "
                "fit, or use strategy='ddp' to have them removed during it."
            )
        super().on_fit_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._run and self._removes and self._groups and self.strength == 1.0:
            self._cut(self._run, trainer, pl_module)

    def _cut(self, run: CompressionRun, trainer: Trainer, module: LightningModule) -> None:
        """Take the masked channels out of the model and of everything that goes with it."""
        gone = dropped(self._groups, self._removed)
        branches = sum(group.takes_branch(self._removed) for group in self._groups)
        new = remove_(module, self._groups, self._removed, trainer.optimizers, copies(module))
        left = replace(self._reduction.costs, sizes=sizes_of(module))
        self._reduction = replace(self._reduction, groups=(), costs=left)
        self.begin(Selection((), {}))
        self.strength = 1.0
        run.replace(new, lambda name, tensor: narrow(tensor, gone[name]))
        what = f"channels and {branches} whole branches" if branches else "channels"
        rank_zero_info(f"{type(self).__name__}: {what} removed, {self.metrics()['macs']:.4g} of the MACs are left")

    def select(self, module: nn.Module) -> Selection:
        allowed = select(module, self.include, self.exclude)
        example = self._example(module)
        runs = eager(module) if isinstance(module, LightningModule) else module
        with isolate_rng():
            plan = make_plan(copy_without_weights(module) if is_sharded(module) else runs, example, self.remove_blocks)
        left_alone = dict(plan.left_alone)
        for group in plan.groups:
            reasons = {allowed.skipped.get(part.name, "") for part in group.slices if part.role == "out"}
            if reasons & {"excluded", "not included"}:
                left_alone[group.name] = "excluded" if "excluded" in reasons else "not included"
        groups = tuple(group for group in plan.groups if group.name not in left_alone)
        sizes = sizes_of(module)
        prices = {"macs": plan.prices, "parameters": dict.fromkeys(sizes, 1.0)}
        costs = Costs(sizes, shapes.dense_sizes(module), prices)
        share = self._share_to_keep(runs, example, groups, costs)
        self._share = share
        self._reduction = Reduction(self.budget, share, groups, costs, self.round_to)
        if self._reduction.is_met:
            self._reduction = replace(self._reduction, groups=())
        else:
            self._reduction.check_reach(left_alone)
        return _selection(module, self._groups, left_alone)

    @property
    def _groups(self) -> tuple[Group, ...]:
        return self._reduction.groups

    def _share_to_keep(self, module: nn.Module, example: Any, groups: Sequence[Group], costs: Costs) -> float:
        """The budget as a share that stays: of the MACs, of the parameters, or of the channels."""
        if self.budget.name != "latency":
            return self.budget.amount
        if self._loaded is not None and self._loaded["share"] is not None:  # what an interrupted run has measured
            return float(self._loaded["share"])
        weights = {name: parameter.detach() for name, parameter in module.named_parameters()}
        scores = {group.name: criteria.magnitude(members(group, weights, {})) for group in groups}
        dense = shapes.dense_copy(module)
        with isolate_rng():
            return macs_in_time(module, dense, example, groups, scores, costs, self.budget.amount, self.round_to)

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self._removed: dict[str, Tensor] = {}  # group -> True where a unit is removed
        self._gone: Dropped = {}  # the same by parameters
        self._hollowed: set[str] = set()  # parameters that go with a branch
        self._held: Dropped = {}  # the part of it in this rank's shards, on their device
        self._evidence: dict[str, Tensor] = {}  # group -> running mean of scores

    def check(self, target: Target) -> None:
        return

    def describe(self) -> str:
        criterion = getattr(self.criterion, "__name__", repr(self.criterion))
        found = f" ({self._reduction.share:.4g} of the MACs)" if self.budget.name == "latency" else ""
        branches = ", or whole branches" if self.remove_blocks else ""
        return (
            f"{self.budget}{found} by {criterion}, channels in multiples of {self.round_to}{branches}, {self.schedule}"
        )

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        if self.settled or not self._reads_gradient:
            return
        for group in self._groups:
            if not any(part.role != "in" and part.name in gradients for part in group.slices):
                continue  # what makes these channels is frozen, or another optimizer steps it
            score = self._score(group, latents, gradients)
            self._evidence.setdefault(group.name, score.clone()).lerp_(score, 1 - self.decay)

    def update(self, weights: Mapping[str, Tensor]) -> None:
        unknown = [group.name for group in self._groups if group.name not in self._evidence]
        if self._reads_gradient and unknown:
            self.wait_for("gradients", unknown, silently=not self._evidence)
            return
        scores = self._evidence or {group.name: self._score(group, weights, {}) for group in self._groups}
        self._remove(self._reduction.choose(scores, self.strength))

    def _score(self, group: Group, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> Tensor:
        """Scores of whole units: what is sharded is gathered, a group at a time."""
        names = {part.name for part in group.slices}
        whole, slopes = (
            {name: gather(t, self.targets[name].parameter) for name, t in tensors.items() if name in names}
            for tensors in (weights, gradients)
        )
        scores = self.criterion(members(group, whole, slopes))
        if scores.shape != (group.units,):
            raise ValueError(
                f"need a criterion that gives a score for each of the {group.units} units of {group.name!r}, got "
                f"scores of shape {tuple(scores.shape)}"
            )
        return scores

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        mask_(weights, self._held)

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        self.project_(gradients)

    def metrics(self) -> dict[str, float]:
        costs, priced = self._reduction.costs, self._reduction.priced
        return {name: costs.share(name, self._gone, self._hollowed) for name in dict.fromkeys(("macs", priced))}

    def report(self) -> dict[str, object]:
        # How many weights were its own says nothing any more once channels are cut out.
        return {"method": self.describe(), "strength": self.strength, **self.metrics()}

    def state_dict(self) -> dict[str, Any]:
        mine = {"removed": self._removed, "evidence": self._evidence, "share": self._share}
        return {**super().state_dict(), **mine}

    def restore(self) -> None:
        state = self._loaded
        super().restore()
        if state is not None:
            self._evidence = dict(state["evidence"])
            self._remove(state["removed"])

    @property
    def _reads_gradient(self) -> bool:
        return evidence_of(self.criterion) == "gradient"

    def _remove(self, removed: Mapping[str, Tensor]) -> None:
        self._removed = dict(removed)
        gone = dropped(self._groups, self._removed)
        self._gone = {name: dims for name, dims in gone.items() if name in self.targets}
        whole = [group for group in self._groups if group.takes_branch(self._removed)]
        self._hollowed = {name for group in whole for name in group.hollowed(self._reduction.costs.sizes)}
        self._held = {
            name: {
                dim: local_positions(positions, self.targets[name].parameter, dim) for dim, positions in dims.items()
            }
            for name, dims in self._gone.items()
        }

    def _check_shards(self, strategy: ModelParallelStrategy) -> None:
        split = strategy.device_mesh["tensor_parallel"].size()
        if split > 1:
            raise ValueError(
                f"need ModelParallelStrategy(tensor_parallel_size=1) to prune channels, got {split}: layers that are "
                "split among processes cannot be traced"
            )
        if self.budget.name == "latency":
            raise ValueError(
                f"need macs, parameters or channels under ModelParallelStrategy, got latency={self.budget.amount}: a "
                "sharded model cannot be timed at other widths"
            )

    def _example(self, module: nn.Module) -> Any:
        example = self.example_input
        if example is None:
            example = getattr(module, "example_input_array", None)
        if example is None and isinstance(module, LightningModule):
            example = first_examples(module.trainer.fit_loop._data_source.dataloader(), module)
            example = module.trainer.precision_plugin.convert_input(example)
        device = next(module.parameters()).device
        return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, example)


def _selection(module: nn.Module, groups: Sequence[Group], left_alone: dict[str, str]) -> Selection:
    owners = {part.name: part.name.rpartition(".") for group in groups for part in group.slices}
    parameters = dict(module.named_parameters())
    targets = tuple(
        Target(name, (name,), module.get_submodule(owner), parameters[name])
        for name, (owner, _, _) in owners.items()
        if name in parameters
    )
    return Selection(targets, left_alone)
