"""The base of every weight callback: a method with the state and the hooks of a callback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from lightning_compress.lightnings import (
    LightningModule,
    Trainer,
    check_one_package,
    provisional_key,
    rank_zero_info,
    rank_zero_warn,
)
from lightning_compress.messages import listed
from lightning_compress.processes import gather, shard
from lightning_compress.state_dicts import explain_loading
from lightning_compress.training.endings.hooks import after_callbacks
from lightning_compress.training.endings.validations import ValidatesLast
from lightning_compress.training.method import Method, map_tensors
from lightning_compress.training.plans import asked, check_callbacks, check_finished
from lightning_compress.training.run import CompressionRun

__all__ = ["WeightCompression", "original_weights", "with_brought"]


class WeightCompression(Method, ValidatesLast):
    """A method that compresses weights during ``fit``: the base of every weight callback.

    A subclass is a :class:`~lightning_compress.latent.Projection`. It must define :meth:`check`, :meth:`describe`,
    :meth:`update` and :meth:`project_`, and should define :meth:`verify`; every other method has a default. All weight
    callbacks of a Trainer take part in one :class:`~.run.CompressionRun`, which the first of them drives.

    ========================  ==================================================================================
    ``on_fit_start``          select the targets, refuse conflicts, print the plan
    ``on_train_start``        restore the state of a checkpoint, project the weights; both wait for the first
                              batch if a method awaits it
    ``on_train_batch_start``  take up new layers; project weights that another callback wrote, once an epoch
    ``on_before_optimizer_step``  the parameters of the optimizer hold their latents until the step is done
    ``on_train_batch_end``    update masks, codebooks and grids that are due
    ``on_train_end``          validate once more, if a callback has left other weights than the last validation saw
    ``on_fit_end``            project a last time, verify, drop the latents
    ``on_exception``          the same without ``verify``, when all callbacks have written their checkpoints
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
    _set_up = False

    def __getstate__(self) -> dict[str, Any]:
        # A run belongs to its Trainer and holds hooks, which neither pickle nor copy.
        return {**vars(self), "_run": None, "_loaded": None, "company": (), "_final_validation": None}

    @property
    def brings(self) -> Sequence[WeightCompression]:
        """Callbacks that join the Trainer's list with this one, right behind it, once ``fit`` is set up."""
        return ()

    @property
    def state_key(self) -> str:
        key = self._generate_state_key(include=self.include, exclude=self.exclude)
        return key if self._set_up else provisional_key(self)  # check_conflicts refuses equal keys, in fit

    def state_dict(self) -> dict[str, Any]:
        tensors = map_tensors(self.tensors(), lambda name, tensor: gather(tensor, self.targets[name].parameter))
        return {"strength": self.strength, "tensors": tensors, "arguments": asked(self), "joined": list(self.joined)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Some strategies load before the model is built, some after: the state waits until the run starts.
        self._loaded, self.joined = state_dict, tuple(state_dict.get("joined", ()))

    def start(self, module: LightningModule) -> None:
        """Training of ``module`` starts, and the targets are known: load the state of the checkpoint."""
        self.restore()

    def restore(self) -> None:
        """Load the state of the checkpoint, if there is one."""
        state, self._loaded = self._loaded, None
        if state is None:
            return
        self.strength = state["strength"]
        parameters = {name: target.parameter for name, target in self.targets.items()}
        self.load_tensors(
            map_tensors(state["tensors"], lambda name, t: shard(t.to(parameters[name].device), parameters[name]))
        )

    def wait_for(self, evidence: str, names: Sequence[str], *, silently: bool) -> None:
        """Return to strength 0 until the criterion's evidence has reached all of ``names``; warn once per name."""
        self.strength = 0.0
        if not silently and not self._awaited.issuperset(names):
            self._awaited.update(names)
            rank_zero_warn(
                f"{type(self).__name__} waits: its criterion reads {evidence}, and none has reached {listed(names)} "
                "so far; add what is not trained to exclude, or choose criteria.magnitude"
            )

    @property
    def _driven(self) -> CompressionRun | None:
        """The run, if this callback drives it."""
        return self._run if self._run is not None and self._run.methods[0] is self else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._set_up = True
        for method in self.brings:
            method.setup(trainer, pl_module, stage)
        explain_loading(trainer.strategy)
        if stage != "fit":
            return
        check_callbacks(trainer.callbacks)  # type: ignore[attr-defined]
        check_one_package(trainer, pl_module)
        self._loaded, self.joined = None, ()
        callbacks = trainer.callbacks = with_brought(trainer.callbacks)  # type: ignore[attr-defined]
        methods = [callback for callback in callbacks if isinstance(callback, WeightCompression)]
        if not any(method is self for method in methods):
            raise ValueError(self._need_list("called by another callback"))
        if methods[0] is self:
            for method in methods:
                if method._run is not None:  # no hook of a run is called if on_exception of a callback raises
                    method._run.end()
            run = CompressionRun(methods, trainer, pl_module)
            for method in methods:
                method._run, method.company = run, methods

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._driven:
            self._driven.load(checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._driven:
            self.watch_validations(trainer, pl_module)
            self._driven.prepare()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._run and self._run.methods[-1] is self:
            self._run.start()

    def _need_list(self, got: str) -> str:
        return f"need {type(self).__name__} in Trainer(callbacks=[...]) before fit begins, got it {got}"

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._run is None:
            raise ValueError(self._need_list("in the list while fit runs"))
        if self._driven:
            self._driven.look(batch, new_epoch=batch_idx == 0)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self._driven:
            self._driven.before_step(optimizer)

    def on_train_batch_end(self, *_: Any) -> None:
        if self._driven:
            self._driven.after_batch()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._driven:
            self._driven.save(checkpoint)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *place: Any) -> None:
        super().on_validation_batch_start(trainer, pl_module, batch, *place)
        if self._driven:
            self._driven.show()

    def on_validation_batch_end(self, *hook: Any) -> None:
        super().on_validation_batch_end(*hook)
        if self._driven:
            self._driven.hide()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._run:
            self.conclude()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._driven:
            self._driven.settle()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._driven:
            if isinstance(exception, KeyboardInterrupt) and self.targets:  # the Trainer ends in order, and says nothing
                check_finished(self._driven.methods, self._driven.progress.fraction(), rank_zero_info)
            after_callbacks(trainer.strategy, "on_exception", self._driven.end)
        self.forget_validations()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and self._driven:
            self._driven.end()
        self.forget_validations()


def with_brought(callbacks: Sequence[Any]) -> list[Any]:
    """A list of callbacks, with the callbacks that each of them brings right behind it; none comes twice.

    >>> with_brought(["a callback"])
    ['a callback']
    """
    there = {id(callback) for callback in callbacks}
    found = []
    for callback in callbacks:
        brings = callback.brings if isinstance(callback, WeightCompression) else ()
        found += [callback, *(one for one in brings if id(one) not in there)]
    return found


def original_weights(trainer: Trainer) -> dict[str, Tensor]:
    """Name -> latent of each frozen weight that is compressed with its adapters, in the ``fit`` that runs."""
    methods = [callback for callback in trainer.callbacks if isinstance(callback, WeightCompression)]  # type: ignore[attr-defined]
    runs = [method._run for method in methods if method._run is not None]
    return runs[0].average.frozen() if runs else {}
