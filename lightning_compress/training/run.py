"""One ``fit`` of one module under all the weight methods of its Trainer."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    Strategy,
)
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.compile import to_uncompiled
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from lightning_compress.latent import LatentWeights
from lightning_compress.processes import local
from lightning_compress.targets import Selection, Target
from lightning_compress.training.averages import Average, averaging_first
from lightning_compress.training.monitors import MonitorGate
from lightning_compress.training.order import PRUNE

if TYPE_CHECKING:
    from lightning_compress.training.callback import WeightCompression

__all__ = ["CompressionRun", "copied", "eager", "fixed_shapes"]

_LATENTS = "latent_weights"


class CompressionRun:
    """The latent weights, and when they are exchanged and renewed.

    Args:
        methods: in the order of the Trainer's callbacks; projections apply in the order of projection.
        trainer: the Trainer.
        module: the LightningModule in it.
    """

    def __init__(self, methods: Sequence[WeightCompression], trainer: Trainer, module: LightningModule) -> None:
        self.methods = tuple(methods)
        self._loaded: Mapping[str, Any] = {}
        self._ordered = sorted(methods, key=lambda method: method.order)
        self._trainer = trainer
        self._module = module
        self._parameters: dict[str, Tensor] = {}
        self._latents = LatentWeights({}, ())
        self.average = Average((), module, {}, self._latents)
        trainer.callbacks = averaging_first(trainer.callbacks)  # type: ignore[attr-defined]
        self._followed: set[Optimizer] = set()
        self._announced: dict[Optimizer, list[str]] = {}  # about to step, as the Trainer has said -> what it steps
        self._release: list[Callable[[], None]] = []
        self._fresh: list[WeightCompression] = []  # updated, and not yet logged
        self._length = 1.0
        self._step = 0
        self._epoch = -1  # whose metrics are logged
        self._watched = {"step": -1, "batch": -1}  # the last epochs in which something looked at the weights
        self._warned = False

    @property
    def reached(self) -> bool:
        """Whether every method has reached the compression that was asked for."""
        return all(method.strength == 1.0 for method in self.methods)

    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        if self._module.automatic_optimization or self._trainer.max_steps > -1:
            return min(1.0, self._trainer.global_step / self._length)
        # With manual optimization a batch may take any number of optimizer steps: count batches.
        return min(1.0, (self._trainer.fit_loop.total_batch_idx + 1) / self._length)

    def pauses(self) -> bool:
        """Whether training pauses after the batch that ends, and the model is looked at: validated, or saved."""
        epoch, data = self._trainer.fit_loop.epoch_loop, self._trainer.fit_loop._data_fetcher
        return epoch._is_training_done or (data is not None and epoch._should_check_val_fx(data))

    @property
    def _targets(self) -> dict[str, Target]:
        return {name: target for method in self.methods for name, target in method.targets.items()}

    def begin(self) -> None:
        """The model stands: choose the targets, refuse what cannot work, print the plan, hold back the monitors."""
        strategy = self._trainer.strategy
        if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
            raise ValueError(
                "need a single device, DDP or ModelParallelStrategy (FSDP2) to compress weights during training, "
                f"got {type(strategy).__name__}"
            )
        _check_orders(self.methods)
        for method in self.methods:
            selection = method.select(self._module)
            for target in selection:
                method.check(target)
            method.begin(selection)
            rank_zero_info(_plan(method, selection))
        _refuse_conflicts(self.methods)
        self._parameters = {name: target.parameter for name, target in self._targets.items()}
        self._latents = LatentWeights(self._parameters, self._ordered)
        callbacks = self._trainer.callbacks  # type: ignore[attr-defined]
        self.average = Average(callbacks, self._module, self._targets, self._latents)
        self._gate = MonitorGate(callbacks, closed=lambda: not self.reached)
        self._release.append(self._gate.release)

    def start(self) -> None:
        """Weights, step, methods and optimizers are restored: take up the latents, hook the optimizers, project."""
        self._length = _length(self._trainer)
        for optimizer in self._trainer.optimizers:
            self._follow(optimizer)
        if not self.reached:
            self._gate.forget()
        self._step = self._trainer.global_step
        # A checkpoint of the very start, as a tuner's, has none yet: what begins at once begins now.
        if self._loaded.get(_LATENTS) or (_LATENTS in self._loaded and self._step > 0):
            self._latents.load(self._loaded[_LATENTS])
            self.average.load(self._loaded)
        else:
            self._renew(first=True)
        self._loaded = {}

    def before_step(self, optimizer: Optimizer) -> None:
        """Gradients are ready: let the methods see them, and give the optimizer its latents."""
        self._follow(optimizer)
        names = self._announced[optimizer] = self._stepped_by(optimizer)
        scaler = getattr(self._trainer.precision_plugin, "scaler", None)
        if scaler is None and not self._latents.restored.isdisjoint(names):
            raise _several_gradients(optimizer)
        self._watch("step")
        self._latents.restore(names)
        held = {name: self._parameters[name] for name in names if self._parameters[name].grad is not None}
        latents = {name: local(parameter.detach()) for name, parameter in held.items()}
        gradients = {name: local(parameter.grad) for name, parameter in held.items() if parameter.grad is not None}
        for method in self._ordered:
            mine = {name: gradient for name, gradient in gradients.items() if name in method.targets}
            method.observe({name: latents[name] for name in mine}, mine)
        self._latents.backward(gradients)

    def after_batch(self) -> None:
        """The optimizers have stepped, or not: project what is left, and update the methods that are due."""
        if self._latents.restored:  # a GradScaler skipped the step, and its hook with it
            self._latents.compress(self._latents.restored)
        self._watch("batch")
        if self._trainer.global_step != self._step:
            self._renew()
            self._step = self._trainer.global_step
        if self._trainer.current_epoch != self._epoch:  # Lightning forgets with each epoch what was logged in it
            self._epoch = self._trainer.current_epoch
            self._fresh = list(self.methods)
        for method in self._fresh:
            for name, value in method.metrics().items():
                self._module.log(_log_key(name, method), value)
        self._fresh = []

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Put the latents into a checkpoint; a collective where parameters are sharded."""
        checkpoint[_LATENTS] = self._latents.save()
        self.average.save(checkpoint)

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Keep a checkpoint's latents until :meth:`start`."""
        self._loaded = checkpoint

    def replace(self, parameters: Mapping[str, nn.Parameter | None], narrow: Callable[[str, Tensor], Tensor]) -> None:
        """Go on with new parameters: the latents, the methods, the average, DDP, compiled code.

        Args:
            parameters: name -> new parameter, for those that were replaced; None for one that is gone.
            narrow: name, tensor of the shape of the old parameter -> the same for the new one.
        """
        self._latents.unmask()
        for method in self.methods:
            method.replace(parameters, narrow)
        self._parameters = {name: target.parameter for name, target in self._targets.items()}
        self._latents.replace(parameters, narrow)
        self.average = Average(self._trainer.callbacks, self._module, self._targets, self._latents)  # type: ignore[attr-defined]
        strategy = self._trainer.strategy
        if isinstance(strategy, DDPStrategy):
            self._module.zero_grad(set_to_none=True)  # gradients may be views of the buckets that are given up
            strategy.model = self._module
            strategy.configure_ddp()
        if "torch._dynamo" in sys.modules:
            torch.compiler.reset()  # each new shape would count as one recompilation, and these are limited

    def adopt(self) -> None:
        """An epoch begins, at which another callback may have written into the parameters (SWA, say): project that."""
        self._latents.adopt()

    def settle(self) -> None:
        """Training is over: what the parameters hold now, projected a last time, is the model."""
        self._latents.adopt()
        self._verify()
        self._latents.drop()
        for method in self.methods:
            if method.strength < 1.0:
                rank_zero_warn(
                    f"{type(method).__name__}: the run ended at {self.progress():.0%} of its length, before its "
                    f"schedule; the model is left as it was last validated, at strength {method.strength:.2f} of 1."
                )

    def stop(self) -> None:
        """Leave compressed weights and an untouched Trainer behind, whatever happened."""
        self._latents.compress(self._latents.restored)
        for method in self.methods:
            method.end()
        while self._release:
            self._release.pop()()

    def _watch(self, where: str) -> None:
        """Once an epoch at each of two places: say that another hand writes into the weights, and that it is undone."""
        epoch = self._trainer.current_epoch
        if self._warned or self._watched[where] == epoch or self._latents.restored or not self._latents.latents:
            return
        self._watched[where] = epoch
        if names := self._latents.overwritten():
            self._warned = True
            rank_zero_warn(
                f"something writes into {_listed(names)} after the optimizer has stepped, which the next step "
                "undoes: to clip or normalise weights, do it in optimizer.register_step_post_hook(...), in "
                "configure_optimizers, where they have full precision"
            )

    def _follow(self, optimizer: Optimizer) -> None:
        """Project what the optimizer steps right after it has stepped; also one that comes in the middle of the run."""
        if isinstance(optimizer, LBFGS):
            raise _several_gradients(optimizer)
        if optimizer not in self._followed:
            self._followed.add(optimizer)
            self._release.append(optimizer.register_step_post_hook(self._after_step).remove)

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        names = self._announced.pop(optimizer, None)
        if names is None and not self._module.automatic_optimization:
            raise ValueError(
                f"need steps that the Trainer knows of, got one of {type(optimizer).__name__} itself: step what "
                "self.optimizers() gives, without use_pl_optimizer=False"
            )
        self._latents.compress(self._stepped_by(optimizer) if names is None else names)

    def _stepped_by(self, optimizer: Optimizer) -> list[str]:
        """Names of the targets that an optimizer steps now: what was frozen at first joins it later (finetuning)."""
        names = {id(parameter): name for name, parameter in self._parameters.items()}
        return [names[id(p)] for group in optimizer.param_groups for p in group["params"] if id(p) in names]

    def _renew(self, first: bool = False) -> None:
        progress, step = self.progress(), self._trainer.global_step
        due = []
        for method in self._ordered:
            strength = method.schedule(progress)
            on_step = first or step // method.every_n_steps != self._step // method.every_n_steps
            arrived = strength == 1.0 and method.strength < 1.0
            if strength > 0 and (arrived or (on_step and not method.settled)):
                method.strength = strength
                due.append(method)
        if due:
            self._latents.update(due)
            self._forget(due)
            self._fresh = due
            if torch.is_anomaly_enabled():  # Trainer(detect_anomaly=True)
                self._verify()

    @torch.no_grad()
    def _forget(self, methods: Sequence[WeightCompression]) -> None:
        """A momentum without gradients would fade into subnormal numbers, and CPUs take twice the time for a step."""
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
        """Let the methods see whether what they promise holds; what is pruned, also after those that follow."""
        done: list[WeightCompression] = []
        for projection, weights in self._latents.stages():
            done = [method for method in self._ordered if method is projection or method in done]
            for method in done:
                if method is projection or method.order == PRUNE:
                    method.verify({name: weight for name, weight in weights.items() if name in method.active})


def copied(module: LightningModule) -> LightningModule:
    """A copy that runs itself: that of a module compiled as a whole would run the original, with its weights."""
    trainer = module.trainer
    shared = {id(one): one for one in (trainer, *trainer.callbacks)}  # type: ignore[attr-defined]
    twin = copy.deepcopy(module, shared)
    return twin if twin._compiler_ctx is None else to_uncompiled(twin)


def eager(module: LightningModule) -> LightningModule:
    """The module, or a copy that runs itself if it is compiled as a whole."""
    return module if module._compiler_ctx is None else copied(module)


def fixed_shapes(strategy: Strategy) -> str:
    """The reason why parameters cannot be replaced by others during ``fit``; empty if they can."""
    if isinstance(strategy, ModelParallelStrategy):
        return "parameters that ModelParallelStrategy shards cannot change their shapes"
    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        return "strategies that spawn their processes return no smaller model"
    return ""


def _length(trainer: Trainer) -> float:
    """Length of the run in optimizer steps; in batches under manual optimization without ``max_steps``."""
    length = trainer.estimated_stepping_batches
    if not 0 < length < math.inf:
        raise ValueError(
            "need a run of known length to follow a schedule, got an infinite one: set max_steps, or max_epochs and a "
            "data loader with a length, in the Trainer"
        )
    return float(length)


def _several_gradients(optimizer: Optimizer) -> ValueError:
    return ValueError(
        f"need an optimizer that takes one gradient per step, got {type(optimizer).__name__}: it evaluates the loss "
        "several times per step, between which the weights cannot be projected"
    )


def _check_orders(methods: Sequence[WeightCompression]) -> None:
    for method in methods:
        order = getattr(method, "_order", None)
        if type(order) is not int:
            raise TypeError(
                f"need the order of projection of {type(method).__name__} as an integer, got {order!r}: call "
                "super().__init__(order=PRUNE, ...) with PRUNE, SHARE or QUANTIZE of lightning_compress.training, or "
                "an integer between two of them"
            )


def _log_key(name: str, method: WeightCompression) -> str:
    """``compression/sparsity``; followed by the patterns where a callback does not compress the whole model."""
    return "/".join(["compression", name, *([] if method.include == ("*",) else [",".join(method.include)])])


def _refuse_conflicts(methods: Sequence[WeightCompression]) -> None:
    for method in (method for method in methods if method.alone):
        for other in (other for other in methods if other.order != method.order):
            if names := [name for name in method.targets if name in other.targets]:
                raise ValueError(
                    f"need {type(method).__name__} alone on a weight, got {type(other).__name__} too on "
                    f"{_listed(names)}: name them in exclude of one of the two, or fit a second time with "
                    f"{type(other).__name__}"
                )
    owners: dict[tuple[int, str], WeightCompression] = {}
    for method in methods:
        for name in method.targets:
            other = owners.setdefault((method.order, name), method)
            if other is not method:
                raise ValueError(
                    f"need one callback of a kind per weight, got {type(other).__name__} and {type(method).__name__} "
                    f"both on {name!r}: make their include and exclude patterns disjoint"
                )


def _plan(method: WeightCompression, selection: Selection) -> str:
    weights = sum(target.parameter.numel() for target in selection)
    reasons: dict[str, list[str]] = {}
    for name, reason in selection.skipped.items():
        reasons.setdefault(reason, []).append(name)
    lines = [
        f"{type(method).__name__}: {method.describe()}",
        f"  {weights:,} weights in {len(selection)} tensors: {_listed([target.name for target in selection])}",
        *(f"  left alone, {reason}: {_listed(names)}" for reason, names in reasons.items()),
    ]
    return "\n".join(lines)


def _listed(names: Sequence[str], most: int = 8) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
