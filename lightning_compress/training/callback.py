"""The base of every weight callback: the interface of a method, and its hooks in ``fit``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_compress.arguments import check_count, check_patterns, signature_repr
from lightning_compress.processes import gather, shard
from lightning_compress.schedules import Schedule, check_schedule
from lightning_compress.targets import Selection, Target, select
from lightning_compress.training.plans import check_objects
from lightning_compress.training.run import CompressionRun

__all__ = ["WeightCompression"]


class WeightCompression(Callback, ABC):
    """A method that compresses weights during ``fit``: the base of every weight callback.

    A subclass is a :class:`~lightning_compress.latent.Projection`. It must define :meth:`check`, :meth:`describe`,
    :meth:`update` and :meth:`project_`, and should define :meth:`verify`; every other method has a default. All weight
    callbacks of a Trainer take part in one :class:`~.run.CompressionRun`, which the first of them drives.

    ========================  ==================================================================================
    ``on_fit_start``          select the targets, refuse conflicts, print the plan
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
        TypeError: an argument is of another kind: a name or a class for a schedule, one string for a sequence of
            patterns, a float for a count.
    """

    _run: CompressionRun | None = None
    _loaded: Mapping[str, Any] | None = None

    def __init__(
        self, *, order: int, schedule: Schedule, every_n_steps: int, include: Sequence[str], exclude: Sequence[str]
    ) -> None:
        check_schedule(schedule)
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

    # The method: called by the run.

    def select(self, module: nn.Module) -> Selection:
        """Choose the parameters of ``module`` to compress: by default the weights that the patterns leave."""
        return select(module, self.include, self.exclude)

    def begin(self, selection: Selection) -> None:
        """Start on the selected targets, without state of an earlier run."""
        self.targets: Mapping[str, Target] = {target.name: target for target in selection}
        """Name -> target, of the parameters that this method compresses; empty before ``fit``."""
        self.strength = 0.0
        """Fraction of the asked compression that is reached, in [0, 1]: the schedule's value at the last update."""
        self._awaited: set[str] = set()

    def end(self) -> None:
        """Detach everything from the model, after success and after an exception alike; nothing by default."""
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
        """Whether parameters are masked without exchange; see :class:`~lightning_compress.latent.Projection`."""
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
        """A few words on the method for the printed plan: ``"90 % sparse by magnitude, global"``."""

    @abstractmethod
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Compute masks, codebooks or grids for the present strength, from weights as earlier projections left them."""

    @abstractmethod
    def project_(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite each weight by its projection, in place."""

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        """Turn gradients at the projected weights into those of the latents, in place; the identity by default."""
        return

    def forget_(self, memories: Mapping[str, Tensor]) -> None:
        """Clear momentum of weights that get no gradient any more, after an update; nothing by default."""
        return

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """Read latents, and gradients at the projected weights, before an optimizer steps; nothing by default."""
        return

    @property
    def outlives_later_projections(self) -> bool:
        """Whether later projections keep the promise of :meth:`verify`: they keep zeros, but not values or grids."""
        return False

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        """Raise RuntimeError, with numbers, if ``weights`` break the promise of this method.

        Called with the weights that this method is active for, at the present strength, as its projection left them;
        and after each later projection, if the promise outlives those. Every method of this package defines it.
        """
        return

    def metrics(self) -> dict[str, float]:
        """Numbers to log after an update, by name."""
        return {}

    def report(self) -> dict[str, object]:
        """Entries of this method in a report after ``fit``, by name."""
        weights = sum(target.parameter.numel() for target in self.targets.values())
        return {"method": self.describe(), "weights": weights, "strength": self.strength}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """State for a checkpoint: kind -> parameter name -> tensor of the shape of the parameter (or its shard)."""
        return {}

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore the state that :meth:`tensors` gave."""
        return

    def replace(self, parameters: Mapping[str, nn.Parameter | None], remove: Callable[[str, Tensor], Tensor]) -> None:
        """Continue with new parameters, and with state of their shape.

        Args:
            parameters: name -> new parameter, for those that were replaced; None for one that is gone.
            remove: name, tensor of the shape of the old parameter -> its part for the new one.
        """
        state = self.tensors()
        now = {name: parameters.get(name, target.parameter) for name, target in self.targets.items()}
        self.targets = {
            name: replace(self.targets[name], parameter=parameter)
            for name, parameter in now.items()
            if parameter is not None
        }

        left = {kind: {name: t for name, t in named.items() if name in self.targets} for kind, named in state.items()}
        self.load_tensors(_map(left, lambda name, t: remove(name, t) if name in parameters else t))

    # The callback: state in a checkpoint, and hooks of the Trainer.

    @property
    def state_key(self) -> str:
        return self._generate_state_key(include=self.include, exclude=self.exclude)

    def state_dict(self) -> dict[str, Any]:
        tensors = _map(self.tensors(), lambda name, tensor: gather(tensor, self.targets[name].parameter))
        return {"strength": self.strength, "tensors": tensors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Some strategies load before the model is built, some after: the state waits for on_train_start.
        self._loaded = state_dict

    def restore(self) -> None:
        """Load the state of the checkpoint, if there is one."""
        state, self._loaded = self._loaded, None
        if state is None:
            return
        self.strength = state["strength"]
        parameters = {name: target.parameter for name, target in self.targets.items()}
        self.load_tensors(
            _map(state["tensors"], lambda name, t: shard(t.to(parameters[name].device), parameters[name]))
        )

    def wait_for(self, evidence: str, names: Sequence[str], *, silently: bool) -> None:
        """Return to strength 0 until the criterion's evidence has reached all of ``names``; warn once per name."""
        self.strength = 0.0
        if not silently and not self._awaited.issuperset(names):
            self._awaited.update(names)
            rank_zero_warn(
                f"{type(self).__name__} waits: its criterion reads {evidence}, and none has reached {', '.join(names)} "
                "so far; add what is not trained to exclude, or choose criteria.magnitude"
            )

    @property
    def _driven(self) -> CompressionRun | None:
        """The run, if this callback drives it."""
        return self._run if self._run is not None and self._run.methods[0] is self else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        check_objects(trainer.callbacks)  # type: ignore[attr-defined]
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
            for method in self._driven.methods:
                method.restore()  # a run that is resumed at its end never starts
            self._driven.settle()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._driven:
            self._driven.stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and self._driven:
            self._driven.stop()


def _map(
    tensors: Mapping[str, Mapping[str, Tensor]], function: Callable[[str, Tensor], Tensor]
) -> dict[str, dict[str, Tensor]]:
    return {kind: {name: function(name, tensor) for name, tensor in named.items()} for kind, named in tensors.items()}
