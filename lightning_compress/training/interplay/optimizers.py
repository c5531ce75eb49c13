"""Optimizers: which targets each optimizer of the Trainer steps, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from lightning_compress.adapters import AdditivePath
from lightning_compress.adapters.records import conclude
from lightning_compress.latent import LatentWeights
from lightning_compress.lightnings import LightningModule, Trainer
from lightning_compress.processes import local
from lightning_compress.targets import Target

if TYPE_CHECKING:
    from lightning_compress.training.callback import WeightCompression

__all__ = ["SteppedOptimizers"]


class SteppedOptimizers:
    """Compresses the weights of an optimizer after each of its steps.

    Args:
        trainer: the Trainer.
        module: the LightningModule in it.
        latents: the latents of the targets.
        methods: all methods of the run; each learns of every step.

    Attributes:
        paths: name -> the adapters of a target.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        latents: LatentWeights,
        methods: Sequence[WeightCompression],
    ) -> None:
        self._parameters: Mapping[str, Tensor] = {}
        self._names: Mapping[int, str] = {}  # id of a parameter -> its name
        self.paths: Mapping[str, AdditivePath] = {}
        self._methods = methods
        self._trainer = trainer
        self._module = module
        self._latents = latents
        self._announced: dict[Optimizer, list[str]] = {}  # about to be stepped by the Trainer -> its targets
        self._followed: dict[Optimizer, tuple[Callable[[], None], ...]] = {}  # optimizer -> remove its hooks
        self._entered: dict[Optimizer, int] = {}  # optimizer -> calls of step of its classes that have not returned

    def attend(self, targets: Mapping[str, Target]) -> Mapping[str, AdditivePath]:
        """Compress these targets after the steps of their optimizers, name -> target; they may have replaced others.

        Returns:
            the :attr:`paths`.
        """
        self._parameters = {name: target.parameter for name, target in targets.items()}
        self._names = {id(parameter): name for name, parameter in self._parameters.items()}
        self.paths = {name: target.path for name, target in targets.items() if target.path is not None}
        return self.paths

    def follow(self, optimizer: Optimizer) -> None:
        """Compress the weights of an optimizer after its steps; it may also join in the middle of a run.

        Raises:
            ValueError: the optimizer takes several gradients per step.
        """
        if isinstance(optimizer, LBFGS):
            raise _several_gradients(optimizer)
        if optimizer not in self._followed:
            before = optimizer.register_step_pre_hook(self._enter)
            after = optimizer.register_step_post_hook(self._leave)
            self._followed[optimizer] = before.remove, after.remove

    def await_steps(self) -> None:
        """Between steps: follow the optimizers that the Trainer has now, and forget steps that an exception ended."""
        self._entered.clear()
        for optimizer in self._trainer.optimizers:
            self.follow(optimizer)

    def announce(self, optimizer: Optimizer) -> list[str]:
        """Note that an optimizer steps next; returns the names of the targets that it steps.

        Raises:
            ValueError: the optimizer takes several gradients per step.
        """
        self.follow(optimizer)
        # An optimizer passes over parameters without a gradient, which other code may keep.
        names = [name for name in self._targets_of(optimizer) if self._parameters[name].grad is not None]
        self._announced[optimizer] = names
        scaler = getattr(self._trainer.precision_plugin, "scaler", None)
        if scaler is None and not self._latents.restored.isdisjoint(names):
            raise _several_gradients(optimizer)
        return names

    def adapted_by(self, optimizer: Optimizer) -> list[str]:
        """Names of the targets whose adapters an optimizer holds now."""
        if not self.paths:
            return []
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        return [name for name, path in self.paths.items() if any(id(part) in held for part in path.adapters)]

    @torch.no_grad()
    def forget(self, methods: Sequence[WeightCompression]) -> None:
        """Clear momentum without gradients: it would fade into subnormal numbers, which make a CPU's step slow."""
        for optimizer in self._trainer.optimizers:
            for name in self._targets_of(optimizer):
                parameter = self._parameters[name]
                memories = [
                    local(memory)
                    for memory in optimizer.state.get(parameter, {}).values()
                    if isinstance(memory, Tensor) and memory.shape == parameter.shape
                ]
                for method in methods:
                    for memory in memories if name in method.active else ():
                        method.forget_({name: memory})

    def release(self) -> None:
        """Remove all hooks from the optimizers; weights with adapters stay compressed with those of now."""
        conclude(self.paths.values())
        while self._followed:
            for remove in self._followed.popitem()[1]:
                remove()

    # torch calls the hooks of an optimizer around the step of its class, and again around super().step() if the process
    # has built an optimizer of the parent class: the optimizer has stepped when the outermost of these calls returns.

    def _enter(self, optimizer: Optimizer, *_: Any) -> None:
        self._entered[optimizer] = self._entered.get(optimizer, 0) + 1

    def _leave(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._entered[optimizer] = max(0, self._entered.get(optimizer, 0) - 1)
        if self._entered[optimizer]:
            return
        names = self._announced.pop(optimizer, None)
        if names is None and not self._module.automatic_optimization:
            raise _unannounced(optimizer, kwargs.get("closure"))
        for method in self._methods:
            method.stepped()
        stepped = self._targets_of(optimizer) if names is None else names
        self._latents.compress(stepped, moved=self.adapted_by(optimizer))

    def _targets_of(self, optimizer: Optimizer) -> list[str]:
        """Names of the targets that an optimizer holds now: frozen parameters may join it later (finetuning)."""
        held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
        return [self._names[each] for each in held if each in self._names]


def _unannounced(optimizer: Optimizer, closure: Any) -> ValueError:
    name = type(optimizer).__name__
    if closure is not None:
        return ValueError(
            f"need an optimizer whose step() calls its closure, in which Lightning prepares the step, got {name}, "
            "which leaves it out: choose another optimizer, or call the closure first in step()"
        )
    return ValueError(
        f"need optimizer steps that go through Lightning, got step() of the plain {name}: in manual optimization call "
        "step() of self.optimizers(), without use_pl_optimizer=False"
    )


def _several_gradients(optimizer: Optimizer) -> ValueError:
    return ValueError(
        f"need an optimizer that takes one gradient per step, got {type(optimizer).__name__}: it evaluates the loss "
        "several times per step, between which the weights cannot be projected"
    )
