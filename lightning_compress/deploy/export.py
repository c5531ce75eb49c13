"""Export: one function, the suffix of the path says the format."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.archive import load_archive, save_archive
from lightning_compress.deploy.checks import check_equal, check_near
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.deploy.writers.onnx import write_onnx
from lightning_compress.deploy.writers.programs import write_package, write_program
from lightning_compress.example_inputs import ExampleInput, arguments, device_of, evaluating, on_device, unwrapped
from lightning_compress.lowering.twins import is_quantized, lower, pad_single_channels
from lightning_compress.quantization.activations.quantizers import quantizers_of

__all__ = ["FORMATS", "export"]

_Writer = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Path], Callable[[], list[Tensor]]]
_GRAPHS: dict[str, _Writer] = {".onnx": write_onnx, ".pt2": write_program}

FORMATS = (".lcz", *_GRAPHS)
"""Suffixes of the files that :func:`export` writes."""


def export(
    module: nn.Module,
    path: str | PathLike[str],
    example_input: ExampleInput | None = None,
    *,
    compiled: bool = False,
) -> Path:
    """Write ``module`` to a file, and check that what was written computes what the module does.

    ==========  ============================================================================================
    ``.lcz``    the state dict, lossless and as small as its values allow; checked bit for bit
    ``.onnx``   the computation, opset 21, with a free batch size; checked by running it in ONNX Runtime
    ``.pt2``    the computation as a :class:`torch.export.ExportedProgram`; checked by loading and running it
    ==========  ============================================================================================

    A module that was trained by ``QATCallback`` is written with integer weights and explicit quantize and dequantize
    operations, which runtimes fuse into integer kernels. On average its outputs may differ by 1 % of the largest, or by
    as much as the rounding of activations changes them: one next to the middle of two integers may become the other
    one. A warning names the layers that ONNX Runtime computes in float all the same.

    The computation is that of evaluation mode; the module itself is left as it is. Outputs may differ by
    ``tolerance * max(1, max |output|)``, with ``tolerance`` 1e-4, or 4 units of the last place of a shorter dtype.

    Args:
        module: a trained module; a LightningModule computes its ``forward``.
        path: the file, its suffix the format; written over if it exists.
        example_input: what ``forward`` takes: a tensor, a tuple of arguments or a mapping of keyword arguments, with
            the batch as first dimension of every tensor; not needed for ``.lcz``.
        compiled: have a ``.pt2`` file hold machine code, by AOTInductor with constant weights, for
            ``torch._inductor.aoti_load_package``: the fastest that torch runs, on this kind of processor and with this
            version of torch alone; needs a C++ compiler. For the running process there is
            :func:`~lightning_compress.deploy.freeze`.

    Returns:
        The path.

    Raises:
        ValueError: another suffix, no ``example_input`` where one is needed, ``compiled`` for another format, or the
            file does not compute (hold) what the module does.
        TypeError: ``module`` or ``example_input`` is of another kind; the state dict holds what is no tensor.
        ImportError: ``.onnx`` without the extra ``onnx``.

    >>> import tempfile
    >>> export(nn.Linear(4, 2), Path(tempfile.mkdtemp()) / "m.lcz").name
    'm.lcz'
    """
    module, path = unwrapped(module), Path(path)
    if compiled and path.suffix != ".pt2":
        raise ValueError(f"need a path that ends in .pt2 for compiled=True, got {str(path)!r}")
    if path.suffix == ".lcz":
        _write_archive(module, path)
        return path
    if path.suffix not in _GRAPHS:
        raise ValueError(f"need a path that ends in .lcz, .onnx or .pt2, got {str(path)!r}")
    if example_input is None:
        raise ValueError(f"need example_input to write {path.suffix}, got None: pass export(..., example_input=x)")
    write = write_package if compiled else _GRAPHS[path.suffix]
    with evaluating(module):
        example = on_device(example_input, device_of(module))
        args, kwargs = arguments(example)
        if not is_quantized(module):
            check_equal(path.name, module, example, write(module, args, kwargs, path)())
            return path
        if path.suffix == ".onnx":
            _check_precision(module)
        lowered = lower(module, args, kwargs, integer_bias=path.suffix == ".onnx")
        if compiled:
            pad_single_channels(lowered)
        check_near(path.name, module, example, write(lowered, args, kwargs, path)())
        if path.suffix == ".onnx" and quantizers_of(module):
            _warn_of_float_layers(path)
    return path


def _check_precision(module: nn.Module) -> None:
    half = {parameter.dtype for parameter in module.parameters()} & {torch.float16, torch.bfloat16}
    if half:
        raise ValueError(
            f"need a quantized module in float32 to write .onnx, got one in {half.pop()}: train it with "
            "precision='bf16-mixed' or '32-true', or write .pt2"
        )


def _write_archive(module: nn.Module, path: Path) -> None:
    state = module.state_dict()
    save_archive(state, path)
    loaded = load_archive(path)
    for name, tensor in state.items():
        # Bytes are compared: to a comparison of values NaN is not itself, and -0.0 is 0.0.
        if not torch.equal(_bytes(loaded[name]), _bytes(tensor)):
            raise ValueError(f"need {path.name} to hold the state dict bit for bit, got another {name!r}")


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)


def _warn_of_float_layers(path: Path) -> None:
    floating = OnnxRuntime().operators(path).floating
    if floating:
        warnings.warn(
            f"ONNX Runtime computes {len(floating)} layers of {path.name} in float, though activations are quantized: "
            f"{', '.join(floating)}; a quantizer has to reach their input and their output, which takes "
            "round_branches=True",
            stacklevel=3,
        )
