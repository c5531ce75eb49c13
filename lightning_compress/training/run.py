"""One ``fit`` of one module under all the weight methods of its Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from lightning_compress.latent import LatentWeights
from lightning_compress.lightnings import (
    DeepSpeedStrategy,
    FSDPStrategy,
    LightningModule,
    Trainer,
    rank_zero_info,
    rank_zero_warn,
)
from lightning_compress.processes import local
from lightning_compress.targets import Target
from lightning_compress.training.interplay.averages import Average, averaging_first
from lightning_compress.training.interplay.monitors import MonitorGate
from lightning_compress.training.interplay.overwrites import OverwriteWatch
from lightning_compress.training.plans import check_conflicts, check_orders, check_resumed, plan_text
from lightning_compress.training.progress import Progress
from lightning_compress.training.replacements import follow_replacement

if TYPE_CHECKING:
    from lightning_compress.training.callback import WeightCompression

__all__ = ["CompressionRun"]

_LATENTS, _PROGRESS = "latent_weights", "compression_progress"


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
        self._trainer = trainer
        self._module = module
        self._parameters: dict[str, Tensor] = {}
        self._latents = LatentWeights({}, ())
        self.average = Average((), module, {}, self._latents)
        trainer.callbacks = averaging_first(trainer.callbacks)  # type: ignore[attr-defined]
        self._followed: set[Optimizer] = set()
        self._announced: dict[Optimizer, list[str]] = {}  # about to be stepped by the Trainer -> its targets
        self._release: list[Callable[[], None]] = []
        self._reached: dict[WeightCompression, float] = {}  # strengths of a shorter run that is continued
        self._unlogged: list[WeightCompression] = []
        self._overwrites = OverwriteWatch()
        self._step = 0  # of the last update
        self._epoch = -1  # of the last metrics that were logged

    @property
    def reached(self) -> bool:
        """Whether every method has reached the compression that was asked for."""
        return all(method.strength == 1.0 for method in self.methods)

    @property
    def _targets(self) -> dict[str, Target]:
        return {name: target for method in self.methods for name, target in method.targets.items()}

    def begin(self) -> None:
        """Select the targets of the built model, refuse conflicts, print the plan, hold back the monitors."""
        strategy = self._trainer.strategy
        if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
            raise ValueError(
                "need a single device, DDP or ModelParallelStrategy (FSDP2) to compress weights during training, "
                f"got {type(strategy).__name__}"
            )
        check_orders(self.methods)
        for method in self.methods:
            selection = method.select(self._module)
            for target in selection:
                method.check(target)
            method.begin(selection)
            rank_zero_info(plan_text(method, selection))
        check_conflicts(self.methods)
        self._parameters = {name: target.parameter for name, target in self._targets.items()}
        self._latents = LatentWeights(self._parameters, self._ordered)
        callbacks = self._trainer.callbacks  # type: ignore[attr-defined]
        self.average = Average(callbacks, self._module, self._targets, self._latents)
        self._gate = MonitorGate(callbacks, closed=lambda: not self.reached)
        self._release.append(self._gate.release)

    def start(self) -> None:
        """Hook the optimizers; load the latents of a checkpoint, or project. The Trainer has restored its state."""
        self.progress.start()
        for optimizer in self._trainer.optimizers:
            self._follow(optimizer)
        if not self.reached:
            self._gate.forget()
        self._step = self._trainer.global_step
        if self.progress.fraction() < self._loaded.get(_PROGRESS, 0.0):
            self._reached = {method: method.strength for method in self.methods}
        # A checkpoint of step 0, such as a tuner's, has no latents yet: schedules that start immediately apply now.
        if self._loaded.get(_LATENTS) or (_LATENTS in self._loaded and self._step > 0):
            self._latents.load(self._loaded[_LATENTS])
            self.average.load(self._loaded)
        else:
            self._update(first=True)
        self._loaded = {}

    def before_step(self, optimizer: Optimizer) -> None:
        """Restore latents before an optimizer steps, and let the methods observe and transform its gradients."""
        self._follow(optimizer)
        names = self._announced[optimizer] = self._stepped_by(optimizer)
        scaler = getattr(self._trainer.precision_plugin, "scaler", None)
        if scaler is None and not self._latents.restored.isdisjoint(names):
            raise _several_gradients(optimizer)
        self._overwrites.look("step", self._trainer.current_epoch, self._latents)
        self._latents.restore(names)
        stepped = {name: self._parameters[name] for name in names}
        gradients = {name: local(p.grad) for name, p in stepped.items() if p.grad is not None}
        latents = {name: local(stepped[name].detach()) for name in gradients}
        for method in self._ordered:
            mine = {name: gradient for name, gradient in gradients.items() if name in method.targets}
            method.observe({name: latents[name] for name in mine}, mine)
        self._latents.backward(gradients)

    def after_batch(self) -> None:
        """Project the weights whose optimizer did not step, update the methods that are due, and log their metrics."""
        if self._latents.restored:  # a GradScaler skipped the step, and its hook with it
            self._latents.compress(self._latents.restored)
        self._overwrites.look("batch", self._trainer.current_epoch, self._latents)
        if self._trainer.global_step != self._step:
            self._update()
            self._step = self._trainer.global_step
        if self._trainer.current_epoch != self._epoch:  # Lightning forgets logged values with each epoch
            self._epoch = self._trainer.current_epoch
            self._unlogged = list(self.methods)
        for method in self._unlogged:
            for name, value in method.metrics().items():
                self._module.log(_log_key(name, method), value)
        self._unlogged = []

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Put the latents into a checkpoint; a collective where parameters are sharded."""
        checkpoint[_LATENTS] = self._latents.save()
        checkpoint[_PROGRESS] = self.progress.fraction()
        self.average.save(checkpoint)

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
        self._parameters = {name: target.parameter for name, target in self._targets.items()}
        self._latents.replace(parameters, remove)
        self.average = Average(self._trainer.callbacks, self._module, self._targets, self._latents)  # type: ignore[attr-defined]
        follow_replacement(self._trainer.strategy, self._module)

    def adopt(self) -> None:
        """Project values that another callback (SWA, say) wrote into the parameters at the start of an epoch."""
        self._latents.adopt()

    def settle(self) -> None:
        """Project a last time, verify, drop the latents: the parameters now hold the compressed model."""
        self._latents.adopt()
        self._verify()
        self._latents.drop()
        for method in self.methods:
            if method.strength < 1.0:
                rank_zero_warn(
                    f"{type(method).__name__}: the run ended at {self.progress.fraction():.0%} of its length, before "
                    f"the end of its schedule. The model stays at strength {method.strength:.2f} of 1."
                )

    def stop(self) -> None:
        """Compress all weights and release the Trainer, after success and after an exception alike."""
        self._latents.compress(self._latents.restored)
        for method in self.methods:
            method.end()
        while self._release:
            self._release.pop()()

    def _follow(self, optimizer: Optimizer) -> None:
        """Compress the weights of an optimizer after each of its steps; it may also join in the middle of a run."""
        if isinstance(optimizer, LBFGS):
            raise _several_gradients(optimizer)
        if optimizer not in self._followed:
            self._followed.add(optimizer)
            self._release.append(optimizer.register_step_post_hook(self._after_step).remove)

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        names = self._announced.pop(optimizer, None)
        if names is None and not self._module.automatic_optimization:
            raise ValueError(
                "need optimizer steps that go through Lightning, got step() of the plain "
                f"{type(optimizer).__name__}: in manual optimization call step() of self.optimizers(), without "
                "use_pl_optimizer=False"
            )
        self._latents.compress(self._stepped_by(optimizer) if names is None else names)

    def _stepped_by(self, optimizer: Optimizer) -> list[str]:
        """Names of the targets that an optimizer steps now: frozen parameters may join it later (finetuning)."""
        names = {id(parameter): name for name, parameter in self._parameters.items()}
        return [names[id(p)] for group in optimizer.param_groups for p in group["params"] if id(p) in names]

    def _update(self, first: bool = False) -> None:
        progress, step = self.progress.fraction(), self._trainer.global_step
        due = []
        for method in self._ordered:
            strength = max(method.schedule(progress), self._reached.get(method, 0.0))
            on_step = first or step // method.every_n_steps != self._step // method.every_n_steps
            arrived = strength == 1.0 and method.strength < 1.0
            if strength > 0 and (arrived or (on_step and not method.settled)):
                method.strength = strength
                due.append(method)
        if due:
            self._latents.update(due)
            self._forget(due)
            self._unlogged = due
            if torch.is_anomaly_enabled():  # Trainer(detect_anomaly=True)
                self._verify()

    @torch.no_grad()
    def _forget(self, methods: Sequence[WeightCompression]) -> None:
        """Clear momentum without gradients: it would fade into subnormal numbers, which make a CPU's step slow."""
        for optimizer in self._trainer.optimizers:
            for name in self._stepped_by(optimizer):
                parameter = self._parameters[name]
                memories = [
                    local(memory)
                    for memory in optimizer.state.get(parameter, {}).values()
                    if isinstance(memory, Tensor) and memory.shape == parameter.shape
                ]
                for method in methods:
                    for memory in memories if name in method.active else ():
                        method.forget_({name: memory})

    @torch.no_grad()
    def _verify(self) -> None:
        """Let each method verify its projection; and again after each later one, if its promise outlives those."""
        done: list[WeightCompression] = []
        for projection, weights in self._latents.stages():
            done = [method for method in self._ordered if method is projection or method in done]
            for method in done:
                if method is projection or method.outlives_later_projections:
                    method.verify({name: weight for name, weight in weights.items() if name in method.active})


def _several_gradients(optimizer: Optimizer) -> ValueError:
    return ValueError(
        f"need an optimizer that takes one gradient per step, got {type(optimizer).__name__}: it evaluates the loss "
        "several times per step, between which the weights cannot be projected"
    )


def _log_key(name: str, method: WeightCompression) -> str:
    """``compression/sparsity``; followed by the patterns where a callback does not compress the whole model."""
    return "/".join(["compression", name, *([] if method.include == ("*",) else [",".join(method.include)])])
