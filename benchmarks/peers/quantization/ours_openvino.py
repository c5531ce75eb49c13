"""QATCallback for OpenVINO."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.recipe import Run, Write
from benchmarks.peers.trainers import fit, plain

__all__ = ["plain", "train"]


def train(run: Run) -> Write:
    """Eight bits."""
    example = run.example
    # user code
    from lightning_compress import QATCallback, export
    from lightning_compress.quantization import profiles

    callbacks = [QATCallback(profile=profiles.OpenVINO())]
    # end
    module = fit(run, callbacks)

    def write(folder: Path) -> None:
        # user code
        export(module, folder / "model.onnx", example)
        # end

    return write
