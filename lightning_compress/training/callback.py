"""The base of every weight callback: the questions that a method answers, and its hooks in ``fit``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_compress.arguments import check_code, check_count, check_patterns, signature_repr
from lightning_compress.processes import gather, shard
from lightning_compress.schedules import Schedule
from lightning_compress.targets import Selection, Target, select
from lightning_compress.training.run import CompressionRun

__all__ = ["WeightCompression"]


class WeightCompression(Callback, ABC):
    """A method that compresses weights during ``fit``: the base of every weight callback.

    A subclass is a :class:`~lightning_compress.latent.Projection`. It must define :meth:`describe`, :meth:`update` and
    :meth:`project_`; every other method has a default. All weight callbacks of a Trainer take part in one
    :class:`~.run.CompressionRun`, which the first of them in the Trainer's list drives.

    ========================  ==================================================================================
    ``on_fit_start``          select the targets, refuse what cannot work, print the plan
    ``on_train_start``        restore the state of a checkpoint, project the weights
    ``on_train_batch_start``  first batch of an epoch: project weights that another callback wrote
    ``on_before_optimizer_step``  the parameters of the optimizer hold their latents until the step is done
    ``on_train_batch_end``    update masks, codebooks and grids that are due
    ``on_fit_end``            project a last time, verify, drop the latents
    ========================  ==================================================================================

    Args:
        order: place in the order of projection; see :mod:`~.order`.
        schedule: progress of the run -> strength; must end at 1.
        every_n_steps: optimizer steps between two calls of :meth:`update`.
        include: patterns of the parameters to compress; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of the parameters to leave alone.

    Raises:
        ValueError: the schedule leaves [0, 1] or does not end at 1, or ``every_n_steps`` is below 1.
        TypeError: an argument is of another kind: a name or a class in place of a schedule, one string in place of a
            sequence of patterns, a float in place of a count.
    """

    _run: CompressionRun | None = None
    _loaded: Mapping[str, Any] | None = None

    def __init__(
        self, *, order: int, schedule: Schedule, every_n_steps: int, include: Sequence[str], exclude: Sequence[str]
    ) -> None:
        check_code(schedule=schedule)
        _check_schedule(schedule)
        check_count(every_n_steps=every_n_steps)
        check_patterns(include=include, exclude=exclude)
        self._order = order
        self.schedule = schedule
        self.every_n_steps = every_n_steps
        self.include = tuple(include)
        self.exclude = tuple(exclude)
        self.begin(Selection((), {}))

    def __repr__(self) -> str:
        return signature_repr(self)

    @property
    def order(self) -> int:
        """Place in the order of projection; see :mod:`~.order`."""
        return self._order

    # The method: questions that a run asks.

    def select(self, module: nn.Module) -> Selection:
        """Choose the parameters of ``module`` to compress: by default the weights that the patterns leave."""
        return select(module, self.include, self.exclude)

    def begin(self, selection: Selection) -> None:
        """Start afresh on the selected targets, as if no step had been taken."""
        self.targets: Mapping[str, Target] = {target.name: target for target in selection}
        """Name -> target, of the parameters that this method compresses; empty before ``fit``."""
        self.strength = 0.0
        """How much of what was asked is done, in [0, 1]: the schedule's value at the last update."""
        self._awaited: set[str] = set()

    def end(self) -> None:
        """The run is over, well or not: take off whatever was attached to the model; nothing by default."""
        return

    @property
    def active(self) -> Collection[str]:
        """Names of the parameters that are projected now; empty before the schedule begins."""
        return self.targets.keys() if self.strength > 0 else ()

    @property
    def settled(self) -> bool:
        """Whether nothing is left to update; by default once strength 1 is reached."""
        return self.strength == 1.0

    @property
    def masks_in_place(self) -> bool:
        """Whether the projection is a mask behind which latents stand still; see :class:`~.latent.Projection`."""
        return False

    @property
    def alone(self) -> bool:
        """Whether no other method may project the targets of this one; methods of another order may by default."""
        return False

    @abstractmethod
    def check(self, target: Target) -> None:
        """Raise ValueError, naming the target and the fix, if this method cannot compress it."""

    @abstractmethod
    def describe(self) -> str:
        """What will be done, in a few words for the printed plan: ``"90 % sparse by magnitude, global"``."""

    @abstractmethod
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Renew what the projection depends on, for the present strength; see :class:`~.latent.Projection`."""

    @abstractmethod
    def project_(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite each weight by its projection; see :class:`~.latent.Projection`."""

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        """Turn gradients at the projected weights into those of the latents, in place; the identity by default."""
        return

    def forget_(self, memories: Mapping[str, Tensor]) -> None:
        """Clear what an optimizer remembers of weights that no gradient reaches any more; nothing by default.

        Called after an update with every tensor of its state that has the shape of a weight (or of its shard).
        """
        return

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """See latents and gradients (at the projected weights) before an optimizer steps; nothing by default."""
        return

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        """Raise RuntimeError, with numbers, if ``weights`` do not keep what this method promises; nothing by default.

        They are the parameters that it is active for, as this projection left them, at the present strength.
        """
        return

    def metrics(self) -> dict[str, float]:
        """Numbers to log after an update, by name."""
        return {}

    def report(self) -> dict[str, object]:
        """What a report says of this method after ``fit``, by name."""
        weights = sum(target.parameter.numel() for target in self.targets.values())
        return {"method": self.describe(), "weights": weights, "strength": self.strength}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """State for a checkpoint: kind -> parameter name -> tensor of the shape of the parameter (or its shard)."""
        return {}

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take back what :meth:`tensors` gave."""
        return

    def replace(self, parameters: Mapping[str, nn.Parameter | None], narrow: Callable[[str, Tensor], Tensor]) -> None:
        """Channels have been cut out of parameters: go on with the new ones, and with state of their shape.

        Args:
            parameters: name -> new parameter, for those that were replaced; None for one that is gone.
            narrow: name, tensor of the shape of the old parameter -> the same for the new one.
        """
        state = self.tensors()
        now = {name: parameters.get(name, target.parameter) for name, target in self.targets.items()}
        self.targets = {
            name: replace(self.targets[name], parameter=parameter)
            for name, parameter in now.items()
            if parameter is not None
        }
        self.load_tensors(
            {
                kind: {
                    name: narrow(name, t) if name in parameters else t
                    for name, t in named.items()
                    if name in self.targets
                }
                for kind, named in state.items()
            }
        )

    # The callback: state in a checkpoint, and hooks of the Trainer.

    @property
    def state_key(self) -> str:
        return self._generate_state_key(include=self.include, exclude=self.exclude)

    def state_dict(self) -> dict[str, Any]:
        tensors = {
            kind: {name: gather(tensor, self.targets[name].parameter) for name, tensor in by_name.items()}
            for kind, by_name in self.tensors().items()
        }
        return {"strength": self.strength, "tensors": tensors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Some strategies load before the model is built, some after: what is loaded waits for on_train_start.
        self._loaded = state_dict

    def restore(self) -> None:
        """Take up the state of the checkpoint, if there is one."""
        state, self._loaded = self._loaded, None
        if state is None:
            return
        self.strength = state["strength"]
        parameters = {name: target.parameter for name, target in self.targets.items()}
        self.load_tensors(
            {
                kind: {
                    name: shard(tensor.to(parameters[name].device), parameters[name]) for name, tensor in named.items()
                }
                for kind, named in state["tensors"].items()
            }
        )

    def wait_for(self, evidence: str, names: Sequence[str], *, silently: bool) -> None:
        """Go back to strength 0: the criterion reads what has not reached these names yet, and says so once."""
        self.strength = 0.0
        if not silently and not self._awaited.issuperset(names):
            self._awaited.update(names)
            rank_zero_warn(
                f"{type(self).__name__} waits: its criterion reads {evidence}, and none has reached {', '.join(names)} "
                "so far; add what is not trained to exclude, or choose criteria.magnitude"
            )

    @property
    def _driven(self) -> CompressionRun | None:
        """The run, if this callback is the one that drives it."""
        return self._run if self._run is not None and self._run.methods[0] is self else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._loaded = None
        methods = [callback for callback in trainer.callbacks if isinstance(callback, WeightCompression)]  # type: ignore[attr-defined]
        if methods[0] is self:
            run = CompressionRun(methods, trainer, pl_module)
            for method in methods:
                method._run = run

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._driven:
            self._driven.load(checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._driven:
            self._driven.begin()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.restore()
        if self._run and self._run.methods[-1] is self:
            self._run.start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0 and self._driven:
            self._driven.adopt()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self._driven:
            self._driven.before_step(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._driven:
            self._driven.after_batch()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._driven:
            self._driven.save(checkpoint)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._driven:
            self._driven.average.show()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._driven:
            self._driven.average.hide()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._driven:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightCompression):
                    callback.restore()  # of a run that was over when it was resumed, and so was never started
            self._driven.settle()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._driven:
            self._driven.stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and self._driven:
            self._driven.stop()


def _check_schedule(schedule: Schedule) -> None:
    strengths = [schedule(k / 100) for k in range(101)]
    if not all(0 <= strength <= 1 for strength in strengths) or strengths[-1] != 1:
        raise ValueError(f"need a schedule with strengths in [0, 1] that ends at 1, got schedule={schedule}")
