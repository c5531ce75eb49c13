"""A budget: zeros and distinct values of each layer, chosen during training so that a wish comes true."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_compress.lightnings import LightningModule, Trainer, of_each, rank_zero_info, rank_zero_warn
from lightning_compress.messages import listed
from lightning_compress.report.incoming import FullSanityCheck
from lightning_compress.schedules import Linear, Schedule
from lightning_compress.search.budget.choice.choices import Choice
from lightning_compress.search.budget.choice.composition import check
from lightning_compress.search.budget.guard import Guard, check_trained
from lightning_compress.search.budget.size import Size
from lightning_compress.search.budget.wishes import new_wish
from lightning_compress.targets import Selection, Target
from lightning_compress.training import SHARE, WeightCompression

__all__ = ["CompressionBudget"]

_BATCHES = 10  # whose gradients are read before the first size is tried
_UNJUDGED = 0.99  # largest strength before the guard has ended its search


class CompressionBudget(WeightCompression):
    """Compress to a wish, a size of the file or a loss of metric, by zeros and shared values that the callback chooses.

    ``bytes=``: the ``.lcz`` file fits a number of bytes. When the schedule begins, the callback chooses the fraction of
    zeros: for several numbers of distinct values it finds the fraction with which the file fits, and takes the one of
    the least estimated cost. The smallest weights over all layers are then masked, more of them as the schedule
    advances. When the zeros are complete, at three quarters of the schedule, it chooses the number of distinct values
    of each layer that costs least within the bytes that are left. When the schedule ends, it measures the file, and
    moves the fraction of zeros until the file fits. Before each later validation and at the end it measures again.

    ``max_drop=``: the file is as small as it may be while a metric holds. The trained model is validated as it comes
    in. The callback then tries smaller and smaller files, from an eighth of the dense one on, one between two
    validations. While the metric is at most ``max_drop`` worse, the next file takes 0.6 times the bytes. If it is not,
    weights, optimizers and masks go back to the last good model, and a size between the last good and the failed one
    comes next. When the schedule ends, the last good size stays, and the rest of the run trains it. A metric that
    collapses, or is not a number, goes back as well.

    The cost of a choice is the second-order estimate ``1/2 sum_i F_i (w_i - P(w)_i)^2``. The diagonal of the Fisher
    information ``F`` is a running mean of the squared gradients of the batches.

    Args:
        bytes: most bytes of the file that ``export(module, "model.lcz")`` writes, biases and all other tensors
            included.
        max_drop: how much worse than the reference the metric may be, in its unit: 0.01 is a point of accuracy.
        monitor: name of the metric, as the module logs it in validation; for ``max_drop``.
        mode: ``"max"`` if a large metric is good, ``"min"`` if a small one is.
        patience: number of validations, one after the other, in which a size may fail before the model goes back.
        reference: metric of the dense model; by default the model is validated as it comes into ``fit``.
        schedule: progress of the run -> how far the compression is, from 0 to 1. Its begin ends the dense phase, and
            its end the search. ``Linear(0.15, 0.85)`` by default for ``bytes``, ``Linear(0.0, 0.7)`` for ``max_drop``.
        every_n_steps: optimizer steps between two updates of masks and values, for ``bytes``.
        include: patterns of the parameters to compress; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of the parameters to leave alone.

    Raises:
        ValueError: an argument is out of its range, or there is no wish or more than one; in ``fit``, ``bytes`` is less
            than the model can take or more than the dense model takes, there is no trained model to compare with, the
            module does not log ``monitor``, another method shares or quantizes the same weights, or FSDP2 shards them.
        TypeError: an argument is of another kind.

    Papers: LeCun, Denker and Solla, "Optimal brain damage", NeurIPS (1990), for the cost; Shoham and Gersho, "Efficient
    bit allocation for an arbitrary set of quantizers", IEEE Transactions on Acoustics, Speech and Signal Processing 36
    (1988), for the choice; Han, Mao and Dally, "Deep Compression", https://arxiv.org/abs/1510.00149 (2016).

    >>> CompressionBudget(bytes=0)
    Traceback (most recent call last):
    ValueError: need bytes >= 1, got bytes=0
    """

    _module = nn.Module()  # the one in the Trainer, during fit
    _sanity: FullSanityCheck | None = None
    _incoming: float | None = None  # metric of the model that came in

    def __init__(
        self,
        *,
        bytes: int | None = None,  # noqa: A002 -- the wish is named as what it counts
        max_drop: float | None = None,
        monitor: str = "val_acc",
        mode: Literal["min", "max"] = "max",
        patience: int = 2,
        reference: float | None = None,
        schedule: Schedule | None = None,
        every_n_steps: int = 50,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        if schedule is None:
            schedule = Linear(0.15, 0.85) if max_drop is None else Linear(0.0, 0.7)
        self.bytes = bytes
        self.max_drop = max_drop
        self.monitor = monitor
        self.mode = mode
        self.patience = patience
        self.reference = reference
        super().__init__(order=SHARE, schedule=schedule, every_n_steps=every_n_steps, include=include, exclude=exclude)

    def select(self, module: nn.Module) -> Selection:
        self._module = module
        return super().select(module)

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self._choice = Choice(self._module, self.targets)
        guarded = {"monitor": self.monitor, "mode": self.mode, "patience": self.patience, "reference": self.reference}
        self._wish = new_wish(self.bytes, self.max_drop, guarded)
        self._measured = 0  # bytes of the file

    def end(self) -> None:
        self._module = nn.Module()
        self._close_sanity_check()

    takes_up = False  # the choice is one for the targets that fit began with

    @property
    def masks_in_place(self) -> bool:
        return self._choice.composition.masks_in_place

    def kept(self, name: str) -> Tensor | None:
        return self._choice.composition.kept(name)

    def check(self, target: Target) -> None:
        if isinstance(target.parameter, DTensor):
            raise ValueError(
                f"need whole parameters to measure the file, got {target.name!r}, which FSDP2 shards: use a single "
                "device or DDP, or PruningCallback and WeightSharingCallback"
            )
        check(target)

    def describe(self) -> str:
        if self.bytes is not None:
            return f"a file of at most {self.bytes:,} bytes, by zeros and shared values, {self.schedule}"
        return (
            f"the smallest file with which {self.monitor} is at most {self.max_drop:g} worse, by zeros and shared "
            f"values, {self.schedule}"
        )

    def start(self, module: LightningModule) -> None:
        self._check_alone()
        if self._loaded is None:
            if isinstance(self._wish, Guard) and self._incoming is not None:
                self._wish.reference = self._wish.last = self._incoming
            self.check_wish()
            if isinstance(self._wish, Guard) and self._run is not None:
                self._wish.keep(self._choice, self._run)
        super().start(module)

    def check_wish(self) -> None:
        """Refuse a wish that the model cannot meet, once the callback has begun on it; see the class."""
        _tell(self._wish.check(self._choice))

    def restore(self) -> None:
        if self._loaded is not None:
            self._choice.set_state(self._loaded["choice"])
            self._wish.load_state_dict(self._loaded["wish"])
            self._measured = self._loaded["measured"]
        super().restore()

    def state_dict(self) -> dict[str, Any]:
        state = {"choice": self._choice.state(), "wish": self._wish.state_dict(), "measured": self._measured}
        return {**super().state_dict(), **state}

    def advance(self, progress: float, *, due: bool, reached: float = 0.0) -> bool:
        if isinstance(self._wish, Size):
            return super().advance(progress, due=due, reached=reached)
        strength = self.schedule(progress) if self._wish.ended else min(_UNJUDGED, self.schedule(progress))
        arrived = strength == 1.0 and self.strength < 1.0
        if strength == 0 or not (arrived or (self._wish.climbs and self._choice.batches >= _BATCHES)):
            return False
        self.strength = strength
        return True

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        if isinstance(self._wish, Guard) or not self._choice.values:
            self._choice.observe(gradients)
        self._choice.composition.observe(latents, gradients)

    def stepped(self) -> None:
        self._choice.stepped()

    def update(self, weights: Mapping[str, Tensor]) -> None:
        if not self._choice.fisher and self._run is not None:
            self.strength = 0.0  # no optimizer has stepped yet: the next step asks again
            return
        _tell(self._wish.update(self._choice, weights, self.strength))

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        self._choice.composition.project_(weights)

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        self._choice.composition.backward_(gradients, latents)

    def forget_(self, memories: Mapping[str, Tensor]) -> None:
        self._choice.composition.forget_(memories)

    def falls_short(self) -> bool:
        if self.strength < 1.0 or not isinstance(self._wish, Size):
            return False
        self._measured = self._choice.size()
        return self._measured > self._wish.most or not self._wish.fitted

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        self._choice.composition.verify(weights)

    def metrics(self) -> dict[str, float]:
        return self._choice.composition.metrics() | ({"bytes": float(self._measured)} if self._measured else {})

    def report(self) -> dict[str, object]:
        return {**super().report(), "bytes": self._measured, **self._choice.state()}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        return self._choice.tensors()

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._wish.strengthen(self._choice, self.strength)
        self._choice.load_tensors(tensors, self.targets)

    def replace(self, parameters: Mapping[str, nn.Parameter | None], remove: Callable[[str, Tensor], Tensor]) -> None:
        super().replace(parameters, remove)
        if isinstance(self._wish, Size):
            self._wish.fitted = False  # a model with fewer channels takes fewer bytes: it may keep more of its weights

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        self._incoming = None
        averaging = of_each("callbacks.WeightAveraging") + of_each("callbacks.StochasticWeightAveraging")
        for callback in trainer.callbacks if self.max_drop is not None else ():  # type: ignore[attr-defined]
            if isinstance(callback, averaging):
                raise ValueError(
                    f"need a model that is validated as it is kept, got {type(callback).__name__} beside max_drop=, "
                    "which validates or leaves an average: leave one of the two out"
                )
        if self.max_drop is not None and self.reference is None and self._loaded is None:
            check_trained(pl_module)
            self._sanity = FullSanityCheck(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not isinstance(self._wish, Guard) or trainer.state.fn != "fit" or self._run is None:
            return
        if trainer.sanity_checking:
            if self._sanity is not None:
                self._incoming = self._wish.read(trainer.callback_metrics)
        else:
            value, progress = self._wish.read(trainer.callback_metrics), self._run.progress.fraction()
            back = self._wish.judge(value, trainer.global_step, over=self.schedule(progress) == 1.0)
            dense_phase = self.strength == 0 and self.reference is not None
            if self._wish.improves() if dense_phase else self._wish.holds:
                self._wish.keep(self._choice, self._run)
            elif back and not dense_phase and self.strength < 1.0:  # at 1 a checkpoint holds what was validated
                self._wish.go_back(self._choice, self._run, self.targets)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close_sanity_check()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(self._wish, Guard) and self._run is not None and self._wish.good:  # else no training came
            unseen = self._wish.trying or self._wish.judged != trainer.global_step
            if unseen or not self._wish.holds:
                self._wish.go_back(self._choice, self._run, self.targets)
            self.strength = 1.0  # the search ends with the run
        super().on_fit_end(trainer, pl_module)
        if self.strength == 1.0:  # else the run warns
            self._measured = self._choice.size()
            if missed := self._wish.missed(self._choice, self._measured):
                rank_zero_warn(missed)
            _tell(self._wish.result(self._choice, self._measured))

    def _close_sanity_check(self) -> None:
        if self._sanity is not None:
            self._sanity.close()
        self._sanity = None

    def _check_alone(self) -> None:
        """Refuse methods that this one cannot measure, or cannot take back to the last good model."""
        others = [] if self._run is None else [method for method in self._run.methods if method is not self]
        for method in others:
            if isinstance(self._wish, Guard):
                raise ValueError(
                    f"need CompressionBudget(max_drop=...) as the only weight method, got {type(method).__name__} too: "
                    "leave it out, or ask for bytes="
                )
            if method.order > self.order and (names := [name for name in self.targets if name in method.targets]):
                raise ValueError(
                    f"need the shared values of CompressionBudget in the file, got {type(method).__name__}, which "
                    f"changes them, on {listed(names)}: name them in exclude of one of the two"
                )


def _tell(text: str) -> None:
    if text:
        rank_zero_info(text)
