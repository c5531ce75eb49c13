"""One ``fit`` of one module under all the weight methods of its Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_compress.adapters.callback import halved
from lightning_compress.latent import LatentWeights
from lightning_compress.latent.checkpoints import LATENTS, OPENED, moved, save_adapters
from lightning_compress.latent.snapshots import Snapshot, restore_, take
from lightning_compress.lightnings import LightningModule, Trainer
from lightning_compress.processes import local, reshard_
from lightning_compress.targets import Selection, Target
from lightning_compress.training.endings.verification import verify
from lightning_compress.training.interplay.averages import Average, averaging_first
from lightning_compress.training.interplay.followers import Followers
from lightning_compress.training.interplay.layers import LayerWatch
from lightning_compress.training.interplay.logs import MetricLog
from lightning_compress.training.interplay.monitors import MonitorGate
from lightning_compress.training.interplay.optimizers import SteppedOptimizers
from lightning_compress.training.interplay.overwrites import OverwriteWatch
from lightning_compress.training.interplay.swaps import Swaps
from lightning_compress.training.plans import (
    announce,
    begin_on,
    check_conflicts,
    check_finished,
    check_orders,
    check_resumed,
    check_strategy,
)
from lightning_compress.training.progress import Progress
from lightning_compress.training.replacements import follow_replacement, take_up

if TYPE_CHECKING:
    from lightning_compress.training.callback import WeightCompression

__all__ = ["CompressionRun"]

_PROGRESS = "compression_progress"


class CompressionRun:
    """Decides when latents and parameters are exchanged, and when methods are updated and verified.

    Args:
        methods: in the order of the Trainer's callbacks; projections apply in the order of projection.
        trainer: the Trainer.
        module: the LightningModule in it.
    """

    def __init__(self, methods: Sequence[WeightCompression], trainer: Trainer, module: LightningModule) -> None:
        self.methods = tuple(methods)
        self.progress = Progress(trainer, module)
        self._loaded: Mapping[str, Any] = {}
        self._ordered = sorted(methods, key=lambda method: method.order)
        self._trainer, self._module = trainer, module
        self._parameters: dict[str, Tensor] = {}
        self._latents = LatentWeights({}, ())
        self.average = Average((), module, {}, self._latents)
        trainer.callbacks = averaging_first(trainer.callbacks)  # type: ignore[attr-defined]
        self._optimizers = SteppedOptimizers(trainer, module, self._latents, methods)
        self._release: list[Callable[[], None]] = []
        self._reached: dict[WeightCompression, float] = {}  # strengths of a shorter run that is continued
        self._log = MetricLog(module, methods)
        self._overwrites = OverwriteWatch()
        self._layers = LayerWatch(module)
        self._swaps = Swaps(self._latents)
        self._followers = Followers(self._latents)
        self._step, self._begun = 0, False  # the step of the last update

    @property
    def reached(self) -> bool:
        """Whether every method has reached the compression that was asked for."""
        return all(method.strength == 1.0 for method in self.methods)

    @property
    def _targets(self) -> dict[str, Target]:
        return {name: target for method in self.methods for name, target in method.targets.items()}

    def prepare(self) -> None:
        """Refuse what cannot work; then begin, unless a method awaits the first training batch."""
        check_strategy(self._trainer.strategy)
        check_orders(self.methods)
        for method in self.methods:
            method.begin(Selection((), {}))  # an earlier fit leaves nothing
        self._begin_if_possible()

    def _begin_if_possible(self) -> None:
        if not self._begun and not any(method.awaits_batch(self._module) for method in self.methods):
            self._begin()

    def _begin(self, batch: Any = None) -> None:
        """Select the targets of the built model, refuse conflicts, print the plan, hold back the monitors."""
        self._begun = True
        reshard_(self._module)  # after a validation
        for method in self.methods:
            announce(method, begin_on(method, self._module, batch))
        check_conflicts(self.methods)
        self._latents = LatentWeights({name: target.parameter for name, target in self._targets.items()}, self._ordered)
        self._optimizers = SteppedOptimizers(self._trainer, self._module, self._latents, self.methods)
        self._swaps, self._followers = Swaps(self._latents), Followers(self._latents)
        self._attend()
        self._swaps.attach(self._trainer.strategy)
        callbacks = self._trainer.callbacks  # type: ignore[attr-defined]
        self._gate = MonitorGate(callbacks, closed=lambda: not all(method.stands for method in self.methods))
        self._release += [part.release for part in (self._gate, self._optimizers, self._followers, self._swaps)]

    def start(self) -> None:
        """Training starts, and the Trainer has restored its state: go on from a checkpoint, or project."""
        self.progress.start()
        if self._loaded:  # some strategies load a checkpoint after on_fit_start
            self._begin_if_possible()
        if self._begun:
            self._start()

    def _start(self) -> None:
        """Hook the optimizers; load the latents of a checkpoint, or project."""
        for method in self.methods:
            method.start(self._module)
        self._optimizers.await_steps()
        if not self.reached:
            self._gate.forget()
        self._step = self._trainer.global_step
        if self.progress.fraction() < self._loaded.get(_PROGRESS, 0.0):
            self._reached = {method: method.strength for method in self.methods}
        # A checkpoint of step 0, such as a tuner's, has no latents yet: schedules that start immediately apply now.
        if self._loaded.get(LATENTS) or (LATENTS in self._loaded and self._step > 0):
            self._latents.load(self._loaded[LATENTS], self._loaded.get(OPENED, ()))
            self._latents.compress((), moved=moved(self._optimizers.paths.values(), self._loaded))
            self.average.load(self._loaded)
        else:
            self._update(first=True)
        self._loaded = {}

    def before_step(self, optimizer: Optimizer) -> None:
        """Restore latents before an optimizer steps, and let the methods observe and transform its gradients."""
        names = self._optimizers.announce(optimizer)
        self._followers.step([*names, *self._optimizers.adapted_by(optimizer)])
        self._followers.look()
        self._overwrites.look("step", self._trainer.current_epoch, self._latents)
        self._latents.restore(names)
        gradients = {name: local(grad) for name in names if (grad := self._parameters[name].grad) is not None}
        latents = {name: local(self._parameters[name].detach()) for name in gradients}
        for method in self._ordered:
            mine = {name: gradient for name, gradient in gradients.items() if name in method.targets}
            method.observe({name: latents[name] for name in mine}, mine)
        self._latents.backward(gradients)

    def after_batch(self) -> None:
        """Project the weights whose optimizer did not step, update the methods that are due, and log their metrics."""
        if self._latents.restored:  # a GradScaler skipped the step, and its hook with it
            self._latents.compress(self._latents.restored)
        self._followers.look()
        self._overwrites.look("batch", self._trainer.current_epoch, self._latents)
        if self._trainer.global_step != self._step:
            self._update()
            self._step = self._trainer.global_step
        if self.progress.pauses():
            self._make_up()
        self._followers.note()
        self._log.write(self._trainer.current_epoch)

    def show(self) -> None:
        """Let the model hold compressed weights while it is validated, whatever other code has put into it."""
        if fits := self._trainer.state.fn == "fit":
            self._take_up()
            self._followers.look()
        if fits or self.average.model is not None:  # an average also takes the place of the model after fit
            self._swaps.show()

    def hide(self) -> None:
        """After the last batch of a validation, hand back the weights that :meth:`show` replaced."""
        if self._trainer._evaluation_loop.batch_progress.is_last_batch:
            self._swaps.hide()

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Put the latents into a checkpoint; a collective where parameters are sharded."""
        with self._swaps.handed_back():
            self._followers.look()
            checkpoint[LATENTS] = self._latents.save()
        checkpoint[OPENED] = sorted(self._latents.opened)
        checkpoint[_PROGRESS] = self.progress.fraction()
        self.average.save(checkpoint)

    def snapshot(self) -> Snapshot:
        """The model, its latents and the memory of its optimizers, to :meth:`rewind` to."""
        return take(self._module, self._latents, self._trainer.optimizers)

    def rewind(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot, once the methods have their state of that time; learning rates stay."""
        restore_(snapshot, self._module, self._latents, self._trainer.optimizers)

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse a checkpoint of other arguments; keep its latents until :meth:`start`."""
        check_resumed(self.methods, checkpoint.get("callbacks", {}))
        self._loaded = checkpoint

    def replace(self, parameters: Mapping[str, nn.Parameter | None], remove: Callable[[str, Tensor], Tensor]) -> None:
        """Continue with new parameters, in the latents, methods, average, DDP and compiled code.

        Args:
            parameters: name -> new parameter, for those that were replaced; None for one that is gone.
            remove: name, tensor of the shape of the old parameter -> its part for the new one.
        """
        self._latents.unmask()
        for method in self.methods:
            method.replace(parameters, remove)
        self._latents.replace(parameters, remove)
        self._attend()
        follow_replacement(self._trainer.strategy, self._module)

    def look(self, batch: Any, *, new_epoch: bool) -> None:
        """Before a batch, take up layers that were replaced and weights that begin to be trained.

        In a new epoch, project values that another callback (SWA, say) wrote into the parameters.
        """
        if not self._begun:
            self._begin(batch)
            self._start()
        self._optimizers.await_steps()
        self._take_up()
        if new_epoch:
            self._followers.look()
            self._latents.adopt()
            self._followers.note()

    def settle(self) -> None:
        """Project a last time, verify, drop the latents: the parameters now hold the compressed model."""
        if self._loaded:  # a run that is resumed at its end never starts
            self._begin_if_possible()
            for method in self.methods if self._begun else ():
                method.restore()
                method.conclude()
        self._take_up()
        self._latents.close()
        self._latents.adopt()
        self._make_up()
        verify(self._ordered, self._latents, self._module)
        self.average.settle()
        self._latents.drop()
        check_finished(self.methods, self.progress.fraction() if self.progress.started else None)

    def end(self) -> None:
        """Compress all weights, drop the latents and release the Trainer, after success and exceptions alike."""
        self._latents.finish()
        for method in self.methods:
            method.end()
        while self._release:
            self._release.pop()()

    def _take_up(self) -> None:
        """Let the methods go on with layers that were replaced since the last batch, and with weights that thawed."""
        if not self._begun or not self._layers.changed:
            return
        self._latents.unmask()
        thawed, added, self._layers = self._layers.thawed, self._layers.added, LayerWatch(self._module)
        if changed := take_up(self.methods, self._module, thawed, added):
            check_conflicts(self.methods)
            targets = {name: target.parameter for name, target in self._targets.items()}
            self._latents.take_up({name: p for name, p in targets.items() if p is not self._parameters.get(name)})
            self._attend()
            self._project_anew([method for method in self._ordered if method in changed and method.strength > 0])
            self._gate.forget()

    def _attend(self) -> None:
        """Watch the present targets, and all other code that writes into them."""
        targets, self._layers = self._targets, LayerWatch(self._module)
        callbacks = self._trainer.callbacks  # type: ignore[attr-defined]
        self._swaps.targets, self._parameters = targets, {name: target.parameter for name, target in targets.items()}
        self.average = Average(callbacks, self._module, targets, self._latents)
        self._followers.attend(self._parameters)
        self._latents.offsets = paths = self._optimizers.attend(targets)
        self._latents.half = self._latents.half or halved(callbacks, paths.values())
        save_adapters(self._module, paths.values())

    def _update(self, first: bool = False) -> None:
        progress, due = self.progress.fraction(), []
        for method in self._ordered:
            now, before = (step // method.every_n_steps for step in (self._trainer.global_step, self._step))
            if method.advance(progress, due=first or now != before, reached=self._reached.get(method, 0.0)):
                due.append(method)
        self._project_anew(due)

    def _make_up(self) -> None:
        self._project_anew([method for method in self._ordered if method.falls_short()])

    def _project_anew(self, due: Sequence[WeightCompression]) -> None:
        """Update the methods that are due, and project all weights."""
        if due:
            self._latents.update(due)
            self._optimizers.forget(due)
            self._log.due(due)
            if torch.is_anomaly_enabled():  # Trainer(detect_anomaly=True)
                verify(self._ordered, self._latents, self._module)
