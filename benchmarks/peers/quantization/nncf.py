"""NNCF, whose target is OpenVINO: quantize, train, OpenVINO's own file."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.peers.recipe import Run, Write, plain

__all__ = ["plain", "train"]


def train(run: Run) -> Write:
    """Eight bits."""
    os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "600")  # seconds: the first call compiles C++
    model, example, calibration = run.model, run.example, run.calibration
    # user code
    import nncf
    import openvino

    quantized = nncf.quantize(model.eval(), nncf.Dataset(list(calibration)))
    quantized.train()
    # end
    run.loop(quantized)

    def write(folder: Path) -> None:
        # user code
        stripped = nncf.strip(quantized.eval(), example_input=example)
        program = openvino.convert_model(stripped, example_input=example, input=(-1, 1, 28, 28))
        openvino.save_model(program, folder / "model.xml", compress_to_fp16=False)
        # end

    return write
