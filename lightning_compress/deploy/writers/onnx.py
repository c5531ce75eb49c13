"""ONNX: a module's computation for every runtime that reads the format."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_compress.deploy.onnx_passes.blocks import pack_four_bits, translations, with_blocks
from lightning_compress.deploy.onnx_passes.rewrites import broadcast_constants, fill_channels, keep_floats, pool_means
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.deploy.writers.programs import trace

__all__ = ["write_onnx"]

OPSET = 21


def require_onnx() -> None:
    """Say what is missing to write ``.onnx`` files and run them.

    Raises:
        ImportError: the extra ``onnx`` is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"need {error.name} to write .onnx: pip install 'lightning-compress[onnx]'") from error


def write_onnx(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: Path
) -> Callable[[], list[Tensor]]:
    """Write the ``.onnx`` file; calling the result runs it in ONNX Runtime on the same arguments.

    Raises:
        ImportError: the extra ``onnx`` is not installed.
    """
    require_onnx()
    from onnxscript.ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass

    with _silent():
        program = torch.onnx.export(
            trace(with_blocks(module), args, kwargs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            custom_translation_table=translations(),
        )
    assert program is not None  # noqa: S101  (None is what the exporter without dynamo returns)
    ClearMetadataAndDocStringPass()(program.model)  # where each node came from, stack traces: half of a small file
    broadcast_constants(program.model)
    fill_channels(program.model)
    pool_means(program.model)
    keep_floats(program.model)
    pack_four_bits(program.model)
    RemoveUnusedNodesPass()(program.model)
    program.save(path)
    leaves = [leaf.cpu() for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    return lambda: OnnxRuntime().load(path)(leaves)


@contextmanager
def _silent() -> Iterator[None]:
    """No word, each time, of operators of torchvision where that is not installed."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
