"""Archives: the ``.lcz`` file, which holds the state dict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_compress.archive import load_archive, save_archive
from lightning_compress.deploy.formats import Writer

__all__ = ["Archive"]


@dataclass(frozen=True)
class Archive(Writer):
    """Writes the state dict, lossless and as small as its values allow; the check compares every bit."""

    suffix = ".lcz"
    needs_example = False

    def write(self, module: nn.Module, example: None, path: Path) -> None:
        """Write the state dict.

        Raises:
            TypeError: the state dict holds something other than tensors.
        """
        save_archive(module.state_dict(), path)

    def check(self, module: nn.Module, example: None, path: Path) -> None:
        """Load the file and compare its bytes with those of the state dict.

        Raises:
            ValueError: a tensor differs.
        """
        loaded = load_archive(path)
        for name, tensor in module.state_dict().items():
            # A comparison of values would find NaN unequal to itself, and -0.0 equal to 0.0.
            if not torch.equal(_bytes(loaded[name]), _bytes(tensor)):
                raise ValueError(f"need {path.name} to hold the state dict bit for bit, got another {name!r}")


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
