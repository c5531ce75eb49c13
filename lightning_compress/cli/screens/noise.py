"""Noise: lines of other libraries that help no user of a command. Each is named; nothing else is held back."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["hushed", "quiet_loading"]


@contextmanager
def hushed() -> Iterator[None]:
    """Hold back the warning of Lightning that it uses a deprecated class of torch, and nothing else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        yield


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hold back that which Lightning says about the devices of a Trainer that trains nothing."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
