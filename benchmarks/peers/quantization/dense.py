"""The same epoch in float."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.peers.recipe import Run, Write, plain

__all__ = ["plain", "train"]


def train(run: Run) -> Write:
    """Float weights and activations."""
    model, example = plain(run).eval(), run.example

    def write(folder: Path) -> None:
        shapes = ({0: torch.export.Dim.DYNAMIC},)
        torch.onnx.export(
            model, (example,), folder / "model.onnx", dynamo=True, dynamic_shapes=shapes, external_data=False
        )

    return write
