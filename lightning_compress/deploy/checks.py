"""Checks: an exported file, or a compiled module, computes the same as the trained module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.example_inputs import ExampleInput, call, leaves_in, shapes_of, tensors_in
from lightning_compress.messages import listed
from lightning_compress.quantization.activations.quantizers import quantizers_of

__all__ = ["check_answers", "check_equal", "check_near", "cpu_tensors", "difference", "largest"]


def check_answers(
    module: nn.Module, example: ExampleInput, kinds: tuple[type, ...] = (object,), suffix: str = ""
) -> None:
    """Refuse a ``forward`` with whose outputs no file can be compared: the module is at fault, and not the file.

    Args:
        module: in evaluation mode.
        example: input on which ``forward`` runs.
        kinds: of the values that the outputs may hold.
        suffix: of the file, for the error.

    Raises:
        ValueError: an output is of another kind, is NaN, or differs between two runs.
    """
    name, output = f"{type(module).__name__}.forward", call(module, example)
    if not all(isinstance(leaf, kinds) for leaf in leaves_in(output)):
        raise ValueError(
            f"need a forward that returns tensors to write {suffix}, got {shapes_of(output)} from {name}: return the "
            "rest from another method"
        )
    got = cpu_tensors(output)
    if any(tensor.isnan().any() for tensor in got):
        raise ValueError(
            f"need outputs without NaN to compare a file with, got NaN from {name}: {_cause(module, example)}"
        )
    check = check_near if quantizers_of(module) else check_equal
    try:
        check(f"a second run of {name}", module, example, got)
    except ValueError as error:
        raise ValueError(
            f"{error}: no file can be compared with a forward that draws random numbers or changes the module; pass "
            "them as arguments, or draw them under 'if self.training'"
        ) from error


def _cause(module: nn.Module, example: ExampleInput) -> str:
    """Where NaN may come from, and what helps."""
    if any(tensor.isnan().any() for tensor in tensors_in(example)):
        return "pass an example_input without NaN"
    state = module.state_dict().items()
    broken = [name for name, value in state if isinstance(value, Tensor) and not value.isfinite().all()]
    if broken:
        return f"these tensors of the module are not finite: {listed(broken)}; load a checkpoint from before they were"
    return "its tensors and example_input are finite; mend the division, root or logarithm in it"


def check_equal(name: str, module: nn.Module, example: ExampleInput, got: list[Tensor]) -> None:
    """Refuse outputs that differ from those of a module by more than ``tolerance * max(1, max |output|)``.

    ``tolerance`` is 1e-4, or 4 units of the last place of a shorter dtype.

    Args:
        name: name of the file or object that gave the outputs, for the error.
        module: in evaluation mode.
        example: input of ``forward``.
        got: outputs for the example, on the CPU.

    Raises:
        ValueError: an output differs more, or has another shape.
    """
    expected = cpu_tensors(call(module, example))
    _check_shapes(name, expected, got)
    for want, have in zip(expected, got, strict=True):
        if not want.numel():
            continue
        error = difference(want, have).max().item()
        tolerance = 4 * torch.finfo(want.dtype).eps if want.dtype.is_floating_point else 0.0
        bound = max(1e-4, tolerance) * max(1.0, largest(want))
        if not error <= bound:
            raise ValueError(
                f"need {name} to compute the same as the module within {bound:.2g}, got a difference of {error:.2g}"
            )


def check_near(name: str, module: nn.Module, example: ExampleInput, got: list[Tensor]) -> None:
    """Refuse outputs whose mean difference from those of a quantized module is more than rounding explains.

    Sums in another order move a few activations to the next integer. The mean difference must be below the effect of
    rounding all activations, or below 1 % of the largest output. Arguments are those of :func:`check_equal`.

    Raises:
        ValueError: an output differs more, or has another shape.
    """
    expected, exact = cpu_tensors(call(module, example)), cpu_tensors(_with_exact_activations(module, example))
    _check_shapes(name, expected, got)
    for want, have, free in zip(expected, got, exact, strict=True):
        if not want.numel():
            continue
        bound = max(0.01 * largest(want), difference(want, free).mean().item())
        distance = difference(want, have).mean().item()
        if not distance <= bound:
            raise ValueError(
                f"need {name} to compute the same as the quantized module within {bound:.2g} on average, "
                f"got a mean difference of {distance:.2g}"
            )


def cpu_tensors(output: Any) -> list[Tensor]:
    """The tensors in the output of a module, in order, on the CPU."""
    return [tensor.detach().cpu() for tensor in tensors_in(output)]


def difference(a: Tensor, b: Tensor) -> Tensor:
    """``|a - b|``, where equal infinities differ by 0."""
    return (a.double() - b.double()).abs().masked_fill(a == b, 0.0)


def largest(tensor: Tensor) -> float:
    """The largest finite absolute value; masked scores may be minus infinity."""
    return tensor.double().abs().masked_fill(tensor.isinf(), 0.0).max().item()


def _with_exact_activations(module: nn.Module, example: ExampleInput) -> Any:
    enabled = [quantizer for quantizer in quantizers_of(module).values() if quantizer.enabled]
    for quantizer in enabled:
        quantizer.enabled = False
    try:
        return call(module, example)
    finally:
        for quantizer in enabled:
            quantizer.enabled = True


def _check_shapes(name: str, expected: list[Tensor], got: list[Tensor]) -> None:
    if [tuple(tensor.shape) for tensor in expected] != [tuple(tensor.shape) for tensor in got]:
        raise ValueError(
            f"need {name} to return outputs of shapes {[tuple(tensor.shape) for tensor in expected]}, "
            f"got {[tuple(tensor.shape) for tensor in got]}"
        )
