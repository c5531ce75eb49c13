"""Discovery: the removable groups of a module that is trained, found with an example or with a batch of its data."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_compress.channels.dependencies.removable import Removable, find_removable
from lightning_compress.example_inputs import ExampleInput, device_of, on_device, small_example_in
from lightning_compress.processes import copy_without_weights, is_sharded
from lightning_compress.training.copies import uncompiled

__all__ = ["discover"]


def discover(
    module: nn.Module, example: ExampleInput | None, batch: Any, remove_blocks: bool
) -> tuple[ExampleInput, Removable]:
    """Find an example input of a module, and its removable groups.

    Args:
        module: may be sharded, and compiled as a whole.
        example: input of ``forward``; None to find it in the batch.
        batch: of the training data, on the device of the module.
        remove_blocks: also find residual branches that can be removed whole.

    Raises:
        ImportError: torch-pruning is not installed.
        ValueError: ``forward`` takes neither the example nor a part of the batch, or the model cannot be traced.
    """
    traceable = copy_without_weights(module) if is_sharded(module) else uncompiled(module)
    found = small_example_in(batch, traceable) if example is None else on_device(example, device_of(module))
    return found, find_removable(traceable, found, remove_blocks)
