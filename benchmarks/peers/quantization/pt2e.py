"""torchao's PT2E QAT with its x86 quantizer."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.peers.recipe import Run, Write, plain

__all__ = ["plain", "train"]


def train(run: Run) -> Write:
    """Eight bits."""
    model, example = run.model, run.example
    # user code
    from torchao.quantization.pt2e import move_exported_model_to_eval, move_exported_model_to_train
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer

    shapes = ({0: torch.export.Dim.DYNAMIC},)
    graph = torch.export.export(model, (example,), dynamic_shapes=shapes).module()
    quantizer = x86_inductor_quantizer.X86InductorQuantizer()
    quantizer.set_global(x86_inductor_quantizer.get_default_x86_inductor_quantization_config(is_qat=True))
    prepared = prepare_qat_pt2e(graph, quantizer)
    move_exported_model_to_train(prepared)
    # end
    run.loop(prepared)

    def write(folder: Path) -> None:
        # user code
        move_exported_model_to_eval(prepared)
        converted = convert_pt2e(prepared)
        torch.onnx.export(converted, (example,), folder / "model.onnx", dynamo=True, dynamic_shapes=shapes)
        # end

    return write
