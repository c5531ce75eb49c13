"""Models that FSDP2 shards over two processes."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

__all__ = ["differing", "fsdp2", "gathered", "sharded"]


def sharded(kind: type[L.LightningModule], *parts: str) -> type[L.LightningModule]:
    """The class with each of its named parts sharded, in this order: the module around others comes last."""

    class Sharded(kind):
        def configure_model(self) -> None:
            mesh = self.device_mesh["data_parallel"]
            for part in parts:
                fully_shard(self.get_submodule(part), mesh=mesh)

    return Sharded


def fsdp2(**options: Any) -> dict[str, Any]:
    """What a Trainer needs for FSDP2 on two processes; a checkpoint is one file."""
    defaults = {"data_parallel_size": 2, "tensor_parallel_size": 1, "save_distributed_checkpoint": False}
    return {"strategy": ModelParallelStrategy(**(defaults | options)), "devices": 2}


def gathered(module: nn.Module) -> dict[str, np.ndarray]:
    """The whole parameters, on every rank, as arrays: those pickle by value."""
    for layer in module.modules():
        if isinstance(layer, FSDPModule):
            layer.reshard()
    whole = {name: getattr(p, "full_tensor", lambda p=p: p)() for name, p in module.named_parameters()}
    return {name: tensor.detach().numpy() for name, tensor in whole.items()}


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of the arrays in which two ranks or runs differ, or that one of them lacks."""
    return sorted(name for name in one.keys() | other.keys() if not np.array_equal(one.get(name), other.get(name)))
