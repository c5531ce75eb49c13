"""NVIDIA's Model Optimizer, whose target is TensorRT."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from benchmarks.peers.recipe import Run, Write, plain

__all__ = ["plain", "train"]


def train(run: Run) -> Write:
    """Eight bits."""
    model, example, calibration = run.model, run.example, run.calibration
    # user code
    import modelopt.torch.quantization as mtq

    def calibrate(model: nn.Module) -> None:
        for images in calibration:
            model(images)

    quantized = mtq.quantize(model, mtq.INT8_DEFAULT_CFG, calibrate)
    # end
    run.loop(quantized)

    def write(folder: Path) -> None:
        # user code
        axes = {"images": {0: "batch"}}
        names = {"input_names": ["images"], "dynamic_axes": axes, "dynamo": False}
        torch.onnx.export(quantized.eval(), (example,), folder / "model.onnx", opset_version=17, **names)
        # end

    return write
