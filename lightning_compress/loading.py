"""Loading a checkpoint whose model is more than its state dict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from lightning_compress.carried import attach_structure, carry
from lightning_compress.channels.removal.shapes import CHANNELS
from lightning_compress.low_rank.records import LOW_RANK
from lightning_compress.quantization.grids import Grid
from lightning_compress.quantization.records import QUANTIZATION, recognize_grids

__all__ = ["load_compressed"]

_Module = TypeVar("_Module", bound=Any)
_STRUCTURES = (LOW_RANK, CHANNELS, QUANTIZATION)  # each may name what those before it make


def load_compressed(
    cls: type[_Module], ckpt_path: str | Path, *, grids: Sequence[type[Grid]] = (), **init_args: Any
) -> _Module:
    """Load a compressed LightningModule with what no plain load can carry: removed channels, split layers, quantizers.

    It needs no Trainer and no callback. The file is read with ``weights_only=True``: it cannot run code. A checkpoint
    that carries nothing of the kind is loaded as ``cls.load_from_checkpoint`` does.

    Args:
        cls: class of the LightningModule.
        ckpt_path: a checkpoint that the Trainer wrote.
        grids: classes of the grids of your own that the weights were trained on; a file names them and holds no code.
        init_args: arguments of ``cls`` that its saved hyperparameters do not hold.

    Returns:
        the module; what it computes in evaluation is what was validated.

    Raises:
        TypeError: ``cls`` is no class, or ``grids`` holds something else than subclasses of ``Grid``.
        ValueError: the checkpoint names a grid that is neither one of this package nor in ``grids``.
    """
    if not isinstance(cls, type):
        raise TypeError(f"need the class of the LightningModule as cls, got a {type(cls).__name__}")

    class Loaded(cls):  # type: ignore[misc, valid-type]
        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            recognize_grids(self, grids)
            for structure in _STRUCTURES:
                attach_structure(self, structure, checkpoint)
            super().on_load_checkpoint(checkpoint)

    module = Loaded.load_from_checkpoint(ckpt_path, weights_only=True, map_location="cpu", **init_args)
    module.__class__ = cls
    for structure in _STRUCTURES:
        carry(module, structure)
    return cast(_Module, module)
