"""Noise: lines of other libraries that help no user of a command. Each is named; nothing else is held back."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["hushed", "quiet_loading"]

_WARNINGS = (r".*isinstance\(treespec, LeafSpec\)",)  # Lightning and torch.export use torch's own deprecated class
_LINES = {
    "onnxscript.optimizer._constant_folding": "Evaluation failed: ",  # a constant that is not folded
    "torch.onnx._internal.exporter._registration": "torchvision is not installed. Skipping ",
}


@contextmanager
def hushed() -> Iterator[None]:
    """Hold back the lines named above, in this process, and nothing else."""
    quiet = {name: _Without(start) for name, start in _LINES.items()}
    for name, one in quiet.items():
        logging.getLogger(name).addFilter(one)
    with warnings.catch_warnings():
        for pattern in _WARNINGS:
            warnings.filterwarnings("ignore", pattern)
        try:
            yield
        finally:
            for name, one in quiet.items():
                logging.getLogger(name).removeFilter(one)


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


class _Without(logging.Filter):
    def __init__(self, start: str) -> None:
        super().__init__()
        self._start = start

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self._start)
