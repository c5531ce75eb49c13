"""ONNX: a module's computation for every runtime that reads the format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_compress.deploy.program import trace

__all__ = ["write_onnx"]

OPSET = 21


def write_onnx(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: Path
) -> Callable[[], list[Tensor]]:
    """Write the ``.onnx`` file; calling the result runs it in ONNX Runtime on the same arguments.

    Raises:
        ImportError: the extra ``onnx`` is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"need {error.name} to write .onnx: pip install 'lightning-compress[onnx]'") from error
    program = torch.onnx.export(trace(module, args, kwargs), opset_version=OPSET, dynamo=True, verbose=False)
    assert program is not None  # noqa: S101  (None is what the exporter without dynamo returns)
    _strip(program.model)
    program.save(path)

    def run() -> list[Tensor]:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        leaves = [leaf.cpu().numpy() for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        names = [entry.name for entry in session.get_inputs()]
        return [torch.from_numpy(output) for output in session.run(None, dict(zip(names, leaves, strict=True)))]

    return run


def _strip(model: Any) -> None:
    """Take off what the exporter notes for debugging, lines of source for every node: it can outweigh int8 weights."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in [
        *model.graph.initializers.values(),
        *(out for node in model.graph.all_nodes() for out in node.outputs),
    ]:
        value.metadata_props.clear()
