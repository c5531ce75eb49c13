"""Both Lightnings: the classes of ``lightning`` and ``pytorch_lightning``, which are one library under two names.

A class of the one is no class of the other, so code that asks ``isinstance`` has to know both. Every file of this
package takes the classes of Lightning from here, and works with those that are installed:

- ``Trainer``, ``LightningModule``, ``ModelCheckpoint``, ... are the union of the classes of that name, for annotations
  and ``isinstance``;
- ``CallbackBase`` and ``ModuleBase`` derive from the classes of both, for callbacks and modules of this package.
"""

from __future__ import annotations

import logging
import operator
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import reduce
from importlib import import_module
from itertools import count
from typing import TYPE_CHECKING, Any

import lightning_utilities.core.rank_zero as rank_zero
from lightning_utilities.core.imports import compare_version

__all__ = [
    "PACKAGES",
    "Callback",
    "CallbackBase",
    "DDPStrategy",
    "DeepSpeedStrategy",
    "EarlyStopping",
    "FSDPStrategy",
    "LightningModule",
    "ModelCheckpoint",
    "ModelParallelStrategy",
    "ModuleBase",
    "MultiProcessingLauncher",
    "Strategy",
    "Trainer",
    "WeightAveraging",
    "above_bars",
    "check_one_package",
    "end_bars",
    "isolate_rng",
    "of_each",
    "package_of",
    "provisional_key",
    "rank_zero_info",
    "rank_zero_warn",
]

_NAMES = ("lightning.pytorch", "pytorch_lightning")
_OLDEST = "2.6.4"
_KEYS = count()


def _installed() -> tuple[str, ...]:
    """Names of the packages that are installed and not too old; all are imported."""
    first = next((name for name in _NAMES if name in sys.modules), None)
    found = tuple(name for name in _NAMES if compare_version(name, operator.ge, _OLDEST))
    if not found:
        raise ImportError(f"need lightning or pytorch_lightning, {_OLDEST} or later: pip install lightning")
    # Each package sends the messages of both to its own logger when it is imported. They go to that of the user.
    rank_zero.log = logging.getLogger(f"{first or found[0]}.utilities.rank_zero")
    return found


PACKAGES = _installed()
"""``"lightning.pytorch"``, ``"pytorch_lightning"``, or both."""


def of_each(path: str) -> tuple[Any, ...]:
    """The objects at a dotted path in every installed Lightning.

    >>> [found.__name__ for found in of_each("callbacks.Timer")] == ["Timer"] * len(PACKAGES)
    True
    """
    module, _, name = path.rpartition(".")
    return tuple(getattr(import_module(f"{package}.{module}".rstrip(".")), name) for package in PACKAGES)


def _either(path: str) -> Any:
    """The union of the classes at a dotted path in every installed Lightning."""
    return reduce(operator.or_, of_each(path))


def package_of(cls: type) -> str | None:
    """Name of the Lightning that a class derives from; None if it is neither, or both.

    >>> [package_of(timer) for timer in of_each("callbacks.Timer")] == list(PACKAGES)
    True
    """
    found = {name for name, _ in _origins(cls)}
    return found.pop() if len(found) == 1 else None


def check_one_package(trainer: Trainer, module: LightningModule) -> None:
    """Refuse a Trainer, a module and callbacks that are not all of one Lightning: neither would know the other.

    Raises:
        TypeError: a callback or the module is of another Lightning than the Trainer.
        ImportError: the Trainer's Lightning is too old.
    """
    ours = package_of(type(trainer))
    if ours not in (None, *PACKAGES):
        raise ImportError(f"need {ours} {_OLDEST} or later, got an older one: upgrade it")
    for part in (module, *trainer.callbacks):  # type: ignore[attr-defined]
        theirs = package_of(type(part))
        if ours and theirs and theirs != ours:
            origin = _origins(type(part))[0][1]
            raise TypeError(
                f"need module and callbacks of {ours}, as the Trainer is, got {type(part).__name__} of {theirs}: write "
                f"from {origin.__module__.replace(theirs, ours, 1)} import {origin.__name__}"
            )


@contextmanager
def above_bars() -> Iterator[None]:
    """Let lines that are written to standard error stand above a live progress bar, of tqdm or Rich, and stay whole.

    A bar of Rich redraws its lines. It takes the place of ``sys.stderr``, and lets all that is written to it scroll by
    above; handlers of logging have kept the stream from before. A bar of tqdm is cleared, and drawn again after it.
    """
    hidden = getattr(sys.stderr, "rich_proxied_file", None)
    handlers = [
        handler
        for name in ("", "lightning", "lightning.pytorch", "pytorch_lightning")
        for handler in logging.getLogger(name or None).handlers
        if isinstance(handler, logging.StreamHandler) and hidden is not None and handler.stream is hidden
    ]
    for handler in handlers:
        handler.setStream(sys.stderr)
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    try:
        with tqdm.external_write_mode(file=sys.stderr) if tqdm and hidden is None else nullcontext():
            yield
    finally:
        for handler in handlers:
            handler.flush()
            handler.setStream(hidden)


def end_bars(trainer: Trainer) -> None:
    """End the progress bar of a run that is over, so that nothing is drawn over the lines that follow."""
    bar = trainer.progress_bar_callback
    if bar is not None:
        bar.teardown(trainer, trainer.lightning_module, "fit")


def rank_zero_info(message: str) -> None:
    """Log a line on rank 0, above a live progress bar."""
    with above_bars():
        rank_zero.rank_zero_info(message, stacklevel=6)


def rank_zero_warn(message: str | Warning, *, stacklevel: int = 4, **options: Any) -> None:
    """Warn on rank 0, above a live progress bar; arguments are those of ``warnings.warn``."""
    with above_bars():
        rank_zero.rank_zero_warn(message, stacklevel=stacklevel + 1, **options)


def provisional_key(callback: Callback) -> str:
    """The state key of a callback before its first ``setup``, which equals no other.

    A Trainer that is created refuses callbacks of equal keys in words of its own, which name no way out. With this key
    it is made, and ``setup`` refuses them.

    >>> provisional_key(CallbackBase()) == provisional_key(CallbackBase())
    False
    """
    return f"{type(callback).__qualname__} {next(_KEYS)}"


def _origins(cls: type) -> list[tuple[str, type]]:
    """The classes of Lightning that a class derives from, nearest first, with their packages."""
    return [(name, one) for one in cls.__mro__ for name in _NAMES if f"{one.__module__}.".startswith(f"{name}.")]


if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch import Callback as CallbackBase
    from lightning.pytorch import LightningModule as ModuleBase
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, WeightAveraging
    from lightning.pytorch.strategies import (
        DDPStrategy,
        DeepSpeedStrategy,
        FSDPStrategy,
        ModelParallelStrategy,
        Strategy,
    )
    from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher as MultiProcessingLauncher
    from lightning.pytorch.utilities.seed import isolate_rng
else:
    Callback, LightningModule, Trainer = map(_either, ("Callback", "LightningModule", "Trainer"))
    EarlyStopping = _either("callbacks.EarlyStopping")
    ModelCheckpoint = _either("callbacks.ModelCheckpoint")
    WeightAveraging = _either("callbacks.WeightAveraging")
    DDPStrategy = _either("strategies.DDPStrategy")
    DeepSpeedStrategy = _either("strategies.DeepSpeedStrategy")
    FSDPStrategy = _either("strategies.FSDPStrategy")
    ModelParallelStrategy = _either("strategies.ModelParallelStrategy")
    Strategy = _either("strategies.Strategy")
    MultiProcessingLauncher = _either("strategies.launchers._MultiProcessingLauncher")
    isolate_rng, *_ = of_each("utilities.seed.isolate_rng")

    class CallbackBase(*of_each("Callback")):
        """A callback for the Trainer of either Lightning."""

    class ModuleBase(*of_each("LightningModule")):
        """A module that both Lightnings take for a class of theirs; see :class:`OfOne` for its instances."""
