"""A budget: channels, zeros and distinct values of each layer, chosen during training so that wishes come true."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from lightning_compress.channels.budget.runners import Runner, eager
from lightning_compress.lightnings import LightningModule, Trainer
from lightning_compress.report.incoming import FullSanityCheck
from lightning_compress.schedules import Schedule, strength_at
from lightning_compress.search.budget.choice.choices import Choice
from lightning_compress.search.budget.choice.composition import check
from lightning_compress.search.budget.company import check_cuts, check_methods, check_trainer
from lightning_compress.search.budget.wishes.asked import check_asked, new_wish, wishes_in
from lightning_compress.search.budget.wishes.cuts import new_cut
from lightning_compress.targets import Selection, Target
from lightning_compress.training import SHARE, WeightCompression
from lightning_compress.training.endings.due_validations import DueValidation
from lightning_compress.training.endings.results import tell

__all__ = ["CompressionBudget"]


class CompressionBudget(WeightCompression):
    """Compress to wishes: a size of the file, a speed, a loss of a metric. The callback chooses how, in each layer.

    ``bytes=``: the ``.lcz`` file fits a number of bytes. When the schedule begins, the callback chooses the fraction of
    zeros: for several numbers of distinct values it finds the fraction with which the file fits, and takes the one of
    the least estimated cost. The smallest weights over all layers are then masked, more of them as the schedule
    advances. When the zeros are complete, at three quarters of the schedule, it chooses the number of distinct values
    of each layer that costs least within the bytes that are left. When the schedule ends, it measures the file, and
    moves the fraction of zeros until the file fits. Before each later validation and at the end it measures again.

    ``macs=`` or ``latency=``: a fraction of the multiply-accumulates, or of the latency, is kept. A
    :class:`~lightning_compress.ChannelPruningCallback`, which this callback brings along, removes whole channels in the
    course of the schedule. Together with ``bytes`` they are removed in its first half, and the zeros and values are
    chosen in the second half, for the file of the smaller model.

    ``max_drop=``: the file is as small as it may be while a metric holds. The trained model is validated as it comes
    in. Smaller and smaller files are then tried, one between two validations. If the metric is more than ``max_drop``
    worse, or not a number, weights, optimizers and masks go back to the last good model, and a size between the last
    good and the failed one comes next. When the schedule ends, the last good size stays, and the rest of the run trains
    it: the model of this size with the best metric is left. It is a wish that stands alone.

    The cost of a choice is the second-order estimate ``1/2 sum_i F_i (w_i - P(w)_i)^2``. The diagonal of the Fisher
    information ``F`` is a running mean of the squared gradients of the batches.

    Args:
        bytes: most bytes of the file that ``export(module, "model.lcz")`` writes, biases and all other tensors
            included.
        macs: fraction of the multiply-accumulates of linear and convolution layers to keep, in (0, 1).
        latency: fraction of the latency to keep, in (0, 1). It is measured when ``fit`` starts, and again at its end.
        max_drop: how much worse than the reference the metric may be, in its unit: 0.01 is a point of accuracy.
        runtime: for ``latency``, where it is measured: PyTorch, or ``OnnxRuntime()`` and others of ``deploy``.
        batch_size: for ``latency``, the number of samples in a forward pass.
        round_to: for ``macs`` and ``latency``: every layer keeps a multiple of this number of channels.
        monitor: name of the metric, as the module logs it in validation; for ``max_drop``.
        mode: ``"max"`` if a large metric is good, ``"min"`` if a small one is; by default as its name says.
        patience: number of validations, one after the other, in which a size may fail before the model goes back.
        reference: metric of the dense model; by default the model is validated as it comes into ``fit``.
        schedule: progress of the run -> how far the compression is, from 0 to 1. Its begin ends the dense phase, and
            its end the search. ``Linear(0.15, 0.85)`` by default for ``bytes``, ``Linear(0.0, 0.7)`` for ``max_drop``,
            ``Cubic(0.15, 0.7)`` for ``macs`` or ``latency`` alone.
        every_n_steps: optimizer steps between two updates of masks and values; channels are chosen every 10, or more
            often.
        include: patterns of the parameters to compress, and of the layers whose output channels may be removed; see
            :func:`~lightning_compress.targets.select`.
        exclude: patterns of the parameters and channels to leave alone.

    Raises:
        ImportError: in ``fit``, torch-pruning is not installed (extra ``channels``), for ``macs`` and ``latency``.
        ValueError: an argument is out of its range, there is no wish, or wishes cannot come true together; in ``fit``,
            ``bytes`` is less than the model can take or more than the dense model takes, ``macs`` or ``latency`` is out
            of reach, there is no trained model to compare with, the module does not log ``monitor``, another method
            shares or quantizes the same weights, or FSDP2 shards them.
        TypeError: an argument is of another kind.

    Papers: LeCun, Denker and Solla, "Optimal brain damage", NeurIPS (1990), for the cost; Shoham and Gersho, "Efficient
    bit allocation for an arbitrary set of quantizers", IEEE Transactions on Acoustics, Speech and Signal Processing 36
    (1988), for the choice; Han, Mao and Dally, "Deep Compression", https://arxiv.org/abs/1510.00149 (2016).

    >>> CompressionBudget(bytes=0)
    Traceback (most recent call last):
    ValueError: need bytes >= 1, got bytes=0
    """

    changeable = WeightCompression.changeable | {"runtime", "batch_size"}  # the checkpoint has the MACs to keep

    _module = nn.Module()  # the one in the Trainer, during fit
    _sanity: FullSanityCheck | None = None

    def __init__(
        self,
        *,
        bytes: int | None = None,  # noqa: A002 -- the wish is named as what it counts
        macs: float | None = None,
        latency: float | None = None,
        max_drop: float | None = None,
        runtime: Runner = eager,
        batch_size: int = 1,
        round_to: int = 16,
        monitor: str = "val_acc",
        mode: Literal["min", "max"] | None = None,
        patience: int = 2,
        reference: float | None = None,
        schedule: Schedule | None = None,
        every_n_steps: int = 50,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        self.bytes, self.macs, self.latency, self.max_drop = bytes, macs, latency, max_drop
        self.runtime, self.batch_size, self.round_to = runtime, batch_size, round_to
        self.monitor, self.mode, self.patience, self.reference = monitor, mode, patience, reference
        check_asked({**vars(self), "every_n_steps": every_n_steps})
        schedule = new_wish(vars(self)).schedule if schedule is None else schedule
        super().__init__(order=SHARE, schedule=schedule, every_n_steps=every_n_steps, include=include, exclude=exclude)
        self._cut, self._due = new_cut(vars(self), first=self._wish.chooses), DueValidation()
        self._incoming: Mapping[str, Tensor] | None = None  # metrics of the model that came in

    @property
    def brings(self) -> Sequence[WeightCompression]:
        return () if self._cut is None else (self._cut.callback,)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        check_cuts(self.brings, trainer.callbacks)  # type: ignore[attr-defined]
        super().setup(trainer, pl_module, stage)

    def select(self, module: nn.Module) -> Selection:
        self._module = module
        return super().select(module) if self._wish.chooses else Selection((), {})

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self._choice = Choice(self._module, self.targets)
        self._wish, self._due = new_wish(vars(self)), DueValidation()

    def end(self) -> None:
        self._module = nn.Module()
        self._close_sanity_check()

    takes_up = False  # the choice is one for the targets that fit began with

    @property
    def stands(self) -> bool:
        return super().stands and self._wish.holds

    @property
    def masks_in_place(self) -> bool:
        return self._choice.composition.masks_in_place

    def kept(self, name: str) -> Tensor | None:
        return self._choice.composition.kept(name)

    def check(self, target: Target) -> None:
        check(target)

    def describe(self) -> str:
        parts = ["" if self._cut is None else self._cut.describe(), self._wish.describe()]
        return f"{', then '.join(part for part in parts if part)}, {self.schedule}"

    def start(self, module: LightningModule) -> None:
        check_methods(self, self._wish, () if self._run is None else self._run.methods)
        if self._loaded is None:
            tell(self._wish.start(self._choice, self._expected(module), self._run, self._incoming))
        super().start(module)

    def predict(self) -> str:
        return self._wish.predict(self._choice)

    def _expected(self, module: nn.Module) -> Choice:
        """The choice for the model as it will be without the channels that matter least now."""
        if self._cut is None or not self._wish.chooses:
            return self._choice
        narrowed = self._cut.callback.narrowed_copy(module)
        return Choice(narrowed, {target.name: target for target in super().select(narrowed)})

    def restore(self) -> None:
        if self._loaded is not None:
            self._choice.set_state(self._loaded["choice"])
            self._wish.load_state_dict(self._loaded["wish"])
            self._choice.measured = self._loaded["measured"]
            self._due = DueValidation(self._loaded.get("validated", -1))
        super().restore()

    def state_dict(self) -> dict[str, Any]:
        choice, wish, measured = self._choice.state(), self._wish.state_dict(), self._choice.measured
        state = {"choice": choice, "wish": wish, "measured": measured, "validated": self._due.after}
        return {**super().state_dict(), **state}

    def advance(self, progress: float, *, due: bool, reached: float = 0.0) -> bool:
        return super().advance(progress, due=self._wish.is_due(self._choice, due), reached=reached)

    def strength_at(self, progress: float, reached: float) -> float:
        scheduled = strength_at(self.schedule, progress)
        return self._wish.strength_at(scheduled if self._cut is None else self._cut.rest(scheduled), reached)

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        if self._wish.reads(self._choice):
            self._choice.observe(gradients)
        self._choice.composition.observe(latents, gradients)

    def stepped(self) -> None:
        self._choice.stepped()

    def update(self, weights: Mapping[str, Tensor]) -> None:
        if self._wish.chooses and not self._choice.fisher and self._run is not None:
            self.strength = 0.0  # no optimizer has stepped yet: the next step asks again
            return
        told = self._wish.update(self._choice, weights, self.strength)
        tell("" if self._run is None else told)  # a plan chooses for the present weights alone, and says so

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        self._choice.composition.project_(weights)

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        self._choice.composition.backward_(gradients, latents)

    def forget_(self, memories: Mapping[str, Tensor]) -> None:
        self._choice.composition.forget_(memories)

    def conclude(self) -> None:
        if self._run and self._wish.ends(self._choice, self._run):
            self.strength = 1.0
            self.validate_at_end()

    def falls_short(self) -> bool:
        return self.strength == 1.0 and self._wish.falls_short(self._choice)

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        self._choice.composition.verify(weights)

    def metrics(self) -> dict[str, float]:
        size = self._choice.measured
        return self._choice.composition.metrics() | ({"bytes": float(size)} if size else {})

    def report(self) -> dict[str, object]:
        speed = {} if self._cut is None else self._cut.callback.outcome.report()
        file = {"bytes": self._choice.measured, **self._choice.state()} if self._wish.chooses else {}
        missed = self._wish.missed(self._choice) if self.strength == 1.0 else ""
        told = {**super().report(), "asked": wishes_in(vars(self)), **speed, **file}
        return {**told, "missed": missed} if missed else told

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        return self._choice.tensors()

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._wish.strengthen(self._choice, self.strength)
        self._choice.load_tensors(tensors, self.targets)

    def replace(self, parameters: Mapping[str, nn.Parameter | None], remove: Callable[[str, Tensor], Tensor]) -> None:
        super().replace(parameters, remove)
        self._wish.narrowed()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        self._incoming = None
        check_trainer(self._wish, trainer)
        if self._wish.compares and self._loaded is None:
            self._wish.check(pl_module)
            self._sanity = FullSanityCheck(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or self._run is None:
            return
        if trainer.sanity_checking:
            self._incoming = None if self._sanity is None else dict(trainer.callback_metrics)
        else:
            over = self.schedule(self._run.progress.fraction()) == 1.0
            self._wish.validated(self._choice, self._run, trainer.callback_metrics, over=over)
            self._due.done(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._run and self._wish.compares:
            self._due.save(trainer, checkpoint)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close_sanity_check()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_end(trainer, pl_module)
        if self.strength == 1.0 and self._wish.chooses:  # else the run warns, and the brought callback tells the speed
            self._choice.measure()
            tell(self._wish.result(self._choice), self._wish.missed(self._choice))

    def _close_sanity_check(self) -> None:
        if self._sanity:
            self._sanity.close()
        self._sanity = None
