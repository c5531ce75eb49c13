"""Brevitas: its quantizer of whole graphs, scales calibrated and then learned."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.peers.recipe import Run, Write, plain

__all__ = ["plain", "train"]


def train(run: Run) -> Write:
    """Eight bits."""
    model, example, calibration = run.model, run.example, run.calibration
    # user code
    from brevitas.export import export_onnx_qcdq
    from brevitas.graph.calibrate import calibration_mode
    from brevitas.graph.quantize import preprocess_for_quantize, quantize

    # With merged normalizations training at this learning rate ends at 19 %.
    quantized = quantize(preprocess_for_quantize(model.eval(), merge_bn=False))
    with torch.no_grad(), calibration_mode(quantized):
        for images in calibration:
            quantized(images)
    quantized.train()
    # end
    run.loop(quantized)

    def write(folder: Path) -> None:
        # user code
        axes = {"images": {0: "batch"}}
        path = str(folder / "model.onnx")
        names = {"input_names": ["images"], "output_names": ["scores"], "dynamic_axes": axes, "dynamo": False}
        export_onnx_qcdq(quantized.eval(), args=example, export_path=path, opset_version=17, **names)
        # end

    return write
