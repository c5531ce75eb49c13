"""Safetensors: the state dict as a file that many programs read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_compress.deploy.formats import Writer
from lightning_compress.deploy.writers.archive import bytes_of, is_complete, records_of

__all__ = ["SafeTensors"]


@dataclass(frozen=True)
class SafeTensors(Writer):
    """Writes the state dict, each tensor under all of its names; the check compares every bit.

    ``module.load_state_dict(safetensors.torch.load_file(path))`` reads it. Zeros and grids take as many bytes as other
    numbers: ``.lcz`` is smaller.
    """

    suffix = ".safetensors"
    needs_example = False
    packages = ("safetensors",)
    extra = "transformers"

    def prepare(self, module: nn.Module, example: None) -> nn.Module:
        """The module itself.

        Raises:
            ValueError: the state dict alone is not the model.
        """
        if not is_complete(module, records_of(module)):
            raise ValueError(
                "need a model that its state dict describes to write .safetensors, got one with quantized activations, "
                "removed channels or split layers: write .lcz, which load_compressed reads"
            )
        return module

    def write(self, module: nn.Module, example: None, path: Path) -> None:
        """Write the state dict.

        Raises:
            TypeError: the state dict holds something other than tensors.
        """
        from safetensors.torch import save_file

        save_file(_tensors(module), path, metadata={"format": "pt"})

    def check(self, module: nn.Module, example: None, path: Path) -> None:
        """Load the file and compare its bytes with those of the state dict.

        Raises:
            ValueError: a tensor differs.
        """
        from safetensors.torch import load_file

        have = load_file(path)
        for name, want in _tensors(module).items():
            if name not in have or not torch.equal(bytes_of(have[name]), bytes_of(want)):
                raise ValueError(f"need {path.name} to hold the state dict bit for bit, got another {name!r}")


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state dict on the CPU, without shared memory, which the format cannot hold."""
    state = module.state_dict()
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"need tensors to write .safetensors, got {name!r} of type {type(tensor).__name__}")
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
