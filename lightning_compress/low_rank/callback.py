"""Low-rank compression during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_compress.arguments import check_flag, check_fraction
from lightning_compress.carried import carry, copies
from lightning_compress.lightnings import LightningModule, Trainer, rank_zero_info
from lightning_compress.low_rank.factorization import decompose, project, tail
from lightning_compress.low_rank.layers import as_matrix, factorized_layers, obstacle
from lightning_compress.low_rank.ranks import Size, ranks_by_energy, ranks_by_parameters
from lightning_compress.low_rank.records import LOW_RANK
from lightning_compress.low_rank.splitting import precision_of, split_layers_
from lightning_compress.messages import listed, listed_by_reason
from lightning_compress.processes import gather, shard
from lightning_compress.schedules import Cubic, Schedule
from lightning_compress.targets import Selection, Target, select
from lightning_compress.training import WeightCompression
from lightning_compress.training.interplay.followers import FollowingNetworks, followers_text
from lightning_compress.training.replacements import replaces
from lightning_compress.training.run import CompressionRun

__all__ = ["LowRankCallback"]

_ORDER = 0  # before all others; it is alone on its targets


class LowRankCallback(WeightCompression):
    """Train weights of low rank, and split their layers in two when the schedule has ended.

    Each weight, seen as the matrix ``W`` of shape ``(out, in * ...)``, is projected onto the span of its first ``r``
    left singular vectors: ``P(W) = U U^T W``. While the schedule ramps, ``r`` falls from the full rank to the rank
    asked for, and ``U`` is computed anew every ``every_n_steps`` optimizer steps. At strength 1 a linear layer becomes
    two linear layers, and a convolution becomes one with ``r`` outputs, followed by a pointwise one. The rest of the
    run trains the two factors.

    Targets are the weights of linear layers, of ``Conv1D`` of transformers, and of convolutions without groups. A layer
    that would have more parameters in two stays whole.

    Args:
        parameters: fraction of the parameters of all targets that is kept once layers are split, in (0, 1); 0.5 if
            ``energy`` is not given. The ranks of all layers are chosen together, so that little energy is lost.
        energy: instead of ``parameters``, fraction of the squared singular values that each layer keeps, in (0, 1).
        split: whether to split the layers at strength 1. Otherwise the weights stay, at their rank, and
            :func:`~lightning_compress.low_rank.split_low_rank` splits the layers after ``fit``. Strategies that spawn
            their processes or shard the parameters (FSDP2) leave them whole in any case, and say so.
        schedule: progress of the run -> strength.
        every_n_steps: optimizer steps between two computations of the ranks and of ``U``.
        include: patterns of parameters to compress; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of parameters to leave alone.

    Raises:
        ValueError: an argument is out of its range; in ``fit``, another method has one of the targets, or no rank keeps
            so few parameters.
        TypeError: an argument is of another kind.

    Papers: Jaderberg, Vedaldi and Zisserman, "Speeding up Convolutional Neural Networks with Low Rank Expansions",
    https://arxiv.org/abs/1405.3866 (2014); Idelbayev and Carreira-Perpinan, "Low-Rank Compression of Neural Nets:
    Learning the Rank of Each Layer", CVPR (2020).

    >>> LowRankCallback(energy=1.5)
    Traceback (most recent call last):
    ValueError: need 0 < energy < 1, got energy=1.5
    """

    def __init__(
        self,
        parameters: float | None = None,
        *,
        energy: float | None = None,
        split: bool = True,
        schedule: Schedule = Cubic(begin=0.15, until=0.7),
        every_n_steps: int = 50,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        if parameters is not None and energy is not None:
            raise ValueError(f"need one of parameters and energy, got parameters={parameters!r} and energy={energy!r}")
        if energy is not None:
            check_fraction(energy=energy)
        else:
            parameters = 0.5 if parameters is None else parameters
            check_fraction(parameters=parameters)
        check_flag(split=split)
        super().__init__(order=_ORDER, schedule=schedule, every_n_steps=every_n_steps, include=include, exclude=exclude)
        self.parameters = parameters
        self.energy = energy
        self.split = split
        self._sizes: dict[str, Size] = {}  # of all weights in the account, those of split layers too
        self._split_ranks: dict[str, int] = {}  # weight -> rank, of layers that are split
        self._following = FollowingNetworks(nn.Module())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        carry(pl_module, LOW_RANK)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._splits = self.split and replaces(trainer.strategy, self, "layers stay whole", "split_low_rank")
        super().on_fit_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._run and self._splits and self.targets and self.strength == 1.0:
            self._split_layers(self._run, trainer, pl_module)

    def _split_layers(self, run: CompressionRun, trainer: Trainer, module: LightningModule) -> None:
        """Split the layers of the targets that have a rank, in the model and in everything that goes with it."""
        ranks, targets, followed = self.ranks, self.targets, self._following.followed()
        split_layers_(
            module,
            {targets[name].module_name: rank for name, rank in ranks.items()},
            trainer.optimizers,
            copies(module),
            followed,
        )
        self._split_ranks |= ranks
        self.begin(Selection((), dict(self.skipped)))
        self.strength = 1.0
        run.replace(dict.fromkeys(ranks), lambda name, tensor: tensor)
        whole = [name for name in targets if name not in ranks]
        rank_zero_info(
            f"{type(self).__name__}: split in two, {self.metrics()['parameters']:.4g} of the parameters are left: "
            + (listed(f"{name} to rank {rank}" for name, rank in ranks.items()) or "none")
            + (f"\n  whole, because two layers have no fewer parameters: {listed(whole)}" if whole else "")
            + followers_text(followed, self._following.left_behind())
        )

    def select(self, module: nn.Module) -> Selection:
        selection = select(module, self.include, self.exclude)
        reasons = {target.name: _reason(target) for target in selection}
        sizes = {target.name: _size(target) for target in selection if not reasons[target.name]}
        layers = factorized_layers(module)
        split = dict.fromkeys(target.layer for target in selection if target.layer in layers)
        mine = {f"{name}.weight": layers[name] for name in split}
        if not sizes and not mine:
            raise ValueError("need a layer that can be split in two, got none: " + "; ".join(listed_by_reason(reasons)))
        self._sizes = sizes | {name: Size(*as_matrix(layer.weight, False).shape) for name, layer in mine.items()}
        self._split_ranks = {name: layer.rank for name, layer in mine.items()}
        self._following = FollowingNetworks(module, (self._loaded or {}).get("written", ()))
        skipped = selection.skipped | {name: reason for name, reason in reasons.items() if reason}
        if self._loaded is not None and self._loaded["done"]:
            return Selection((), skipped | dict.fromkeys(sizes, "two layers have no fewer parameters"))
        return Selection(tuple(target for target in selection if target.name in sizes), skipped)

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self._bases: dict[str, Tensor] = {}  # name -> (out, rank), of those that are projected
        self._fixed = False  # the ranks are those that stay

    @property
    def ranks(self) -> dict[str, int]:
        """Name of a target -> its rank now, of those that are not at full rank."""
        return {name: basis.shape[1] for name, basis in self._bases.items()}

    @property
    def alone(self) -> bool:
        return True

    takes_up = False  # the ranks share one budget
    compresses_sums = False  # a layer with adapters cannot be split

    @property
    def splits(self) -> bool:
        return self.split

    @property
    def settled(self) -> bool:
        return False  # weights that are not split go on to learn in all directions, and U follows them

    def check(self, target: Target) -> None:
        return

    def describe(self) -> str:
        amount = f"{self.parameters} of the parameters" if self.energy is None else f"{self.energy} of the energy"
        return f"low rank that keeps {amount}, layers {'split in two' if self.split else 'left whole'}, {self.schedule}"

    def update(self, weights: Mapping[str, Tensor]) -> None:
        found = {name: decompose(self._matrix(name, weight)) for name, weight in weights.items()}
        ranks = self.ranks if self._fixed else self._choose({name: energies for name, (_, energies) in found.items()})
        self._fixed = self.strength == 1.0
        self._bases = {name: found[name][0][:, :rank].contiguous() for name, rank in ranks.items()}

    def _choose(self, energies: Mapping[str, Tensor]) -> dict[str, int]:
        """The ranks at the present strength: from full ranks, evenly down to those that were asked for."""
        asked = self._asked({name: values.tolist() for name, values in energies.items()})
        full = {name: self._sizes[name].full for name in asked}
        ranks = {name: round(full[name] + self.strength * (rank - full[name])) for name, rank in asked.items()}
        return {name: rank for name, rank in ranks.items() if rank < full[name]}

    def _asked(self, energies: Mapping[str, Sequence[float]]) -> dict[str, int]:
        """The ranks at strength 1. The parameters of layers that are split already are taken off the budget."""
        sizes = {name: self._sizes[name] for name in energies}
        if self.parameters is None:
            return ranks_by_energy(energies, sizes, self.energy or 1.0)
        dense = sum(size.whole for size in self._sizes.values())
        gone = sum(self._sizes[name].split(rank) for name, rank in self._split_ranks.items())
        return ranks_by_parameters(energies, sizes, int(self.parameters * dense) - gone)

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in weights.items():
            if name in self._bases:
                target = self.targets[name]
                matrix = project(self._matrix(name, weight), self._bases[name])
                whole = target.outputs_first(matrix.view(target.shape)).to(weight.dtype)
                weight.copy_(shard(whole, target.parameter))

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        for name, rank in self.ranks.items():
            beyond, allowed = tail(self._matrix(name, weights[name]), rank), precision_of(weights[name])
            if beyond > allowed:
                raise RuntimeError(
                    f"need {name!r} of rank {rank}, got singular values beyond it with {beyond:.1e} of the norm of the "
                    f"weight, where rounding leaves at most {allowed:.1e}"
                )

    def metrics(self) -> dict[str, float]:
        ranks = self._split_ranks | self.ranks
        dense = sum(size.whole for size in self._sizes.values())
        kept = sum(
            min(size.whole, size.split(ranks[name])) if name in ranks else size.whole
            for name, size in self._sizes.items()
        )
        return {"parameters": kept / dense if dense else 1.0}

    def report(self) -> dict[str, object]:
        return {
            "method": self.describe(),
            "strength": self.strength,
            "ranks": self._split_ranks | self.ranks,
            **self.metrics(),
        }

    def state_dict(self) -> dict[str, Any]:
        done = self.strength == 1.0 and not self.targets
        return {**super().state_dict(), "bases": self._bases, "done": done, "written": self._following.written}

    def restore(self) -> None:
        state = self._loaded
        super().restore()
        if state is not None:
            self._fixed = self.strength == 1.0
            self._bases = {
                name: basis.to(self.targets[name].parameter.device)
                for name, basis in state["bases"].items()
                if name in self.targets
            }

    def _matrix(self, name: str, weight: Tensor) -> Tensor:
        target = self.targets[name]
        return as_matrix(gather(weight, target.parameter), target.transposed)


def _reason(target: Target) -> str:
    """The reason why a parameter cannot be a target; empty if it can."""
    if target.layer and target.path is None:
        return "of a layer that is split already"
    if len(target.aliases) > 1:
        return "tied to another layer"
    if target.name.rpartition(".")[2] != "weight":
        return "neither a linear layer nor a convolution"
    if reason := obstacle(target.module):
        return reason
    return "" if _size(target).most else "two layers have no fewer parameters at any rank"


def _size(target: Target) -> Size:
    return Size(target.shape[0], target.shape[1:].numel())
