"""Plans on digits: predicted bytes of the archive beside those of the run, from random and from trained weights.

The digits example, eight epochs with each list of callbacks. A plan is made twice: before the run, from its random
weights, and from the weights of a dense run of eight epochs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, seed_everything

from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from examples.digits import DigitsClassifier, DigitsData
from lightning_compress import (
    BinarizationCallback,
    ChannelPruningCallback,
    LowRankCallback,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
    plan,
)
from lightning_compress.pruning import criteria
from lightning_compress.report.measures.profiles import profile

_EXAMPLE = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
_CHANNELS: dict[str, Any] = {"round_to": 4, "example_input": _EXAMPLE}
_METHODS: dict[str, Callable[[], list[Callback]]] = {
    "90 % zeros": lambda: [PruningCallback(0.9)],
    "80 % zeros by taylor": lambda: [PruningCallback(0.8, criterion=criteria.taylor)],
    "16 values": lambda: [WeightSharingCallback(16)],
    "8 bits": lambda: [QATCallback(8)],
    "4 bits": lambda: [QATCallback(4)],
    "2 bits": lambda: [QATCallback(2)],
    "binary": lambda: [BinarizationCallback()],
    "half of the MACs": lambda: [ChannelPruningCallback(0.5, **_CHANNELS)],
    "half of the MACs, 8 bits": lambda: [ChannelPruningCallback(0.5, **_CHANNELS), QATCallback(8)],
    "low rank, half of the parameters": lambda: [LowRankCallback(0.5)],
    "90 % zeros, 4 bits": lambda: [PruningCallback(0.9), QATCallback(4)],
    "90 % zeros, 16 values, 8 bits": lambda: [PruningCallback(0.9), WeightSharingCallback(16), QATCallback(8)],
}


def main() -> None:
    """Print the table."""
    quiet()
    dense = _trained([])
    rows = []
    for name, make in _METHODS.items():
        callbacks, start = make(), time.perf_counter()
        early = plan(_new(), callbacks, _EXAMPLE).after.archive_bytes
        seconds = time.perf_counter() - start
        late = plan(dense, make(), _EXAMPLE).after.archive_bytes
        real = profile(_trained(callbacks)).archive_bytes
        rows.append([name, f"{real:,}", *(f"{planned:,} ({planned / real - 1:+.1%})" for planned in (early, late))])
        rows[-1].append(f"{seconds:.2f}")
    header = ["callbacks", "bytes after fit", "planned from random weights", "from trained weights", "seconds"]
    show("Planned bytes of the archive, digits", header, rows)


def _new() -> DigitsClassifier:
    seed_everything(0, verbose=False)
    return DigitsClassifier()


def _trained(callbacks: list[Callback]) -> DigitsClassifier:
    module = _new()
    trainer(*callbacks, max_epochs=8).fit(module, DigitsData())
    return module


if __name__ == "__main__":
    main()
