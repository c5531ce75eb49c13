"""Core ML: packages that apps on Apple devices run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from lightning_compress.arguments import check_count, check_flag
from lightning_compress.deploy.formats import ComputationWriter, check_full_precision, on_cpu
from lightning_compress.deploy.runtimes.silence import silenced
from lightning_compress.deploy.traces import trace
from lightning_compress.example_inputs import ExampleInput, as_arguments, line_of
from lightning_compress.lowering.layers import QuantizedLayer
from lightning_compress.lowering.modules import check_fits, is_quantized, lower
from lightning_compress.messages import listed
from lightning_compress.quantization import profiles

__all__ = ["CoreMLPackage"]

Array: TypeAlias = "np.ndarray[Any, Any]"

_FEWEST = 256  # entries of a weight that is worth a compressed form
_PALETTES = (1, 2, 3, 4, 6, 8)  # bits of an index
_LEAST = 1e-30  # values below are taken for zeros
_FUSING = "common::fuse_conv_batchnorm"


@dataclass(frozen=True)
class CoreMLPackage(ComputationWriter):
    """Writes a package of Core ML, for iOS 18, macOS 15 and later.

    Each weight has the smallest of Core ML's forms that holds its values exactly: integers with scales, a palette of up
    to 256 values, zeros left out, both, or floats. A quantized module is trained with
    ``QATCallback(profile=profiles.CoreML())``.

    Core ML runs on Apple machines alone. There the check runs the package; elsewhere it compares the weights, and a
    warning says so.

    Args:
        largest_batch: the package takes batches of one up to so many samples.
        half_precision: computes in float16, which the Neural Engine needs; floats are rounded to it, scales too.

    Raises:
        ValueError: ``largest_batch`` is below 1.
        TypeError: an argument is of another kind.
    """

    suffix = ".mlpackage"
    folder = True
    entries = ("Manifest.json", "Data")
    packages = ("coremltools",)
    extra = "coreml"
    largest_batch: int = 1
    half_precision: bool = False

    def __post_init__(self) -> None:
        check_count(1, largest_batch=self.largest_batch)
        check_flag(half_precision=self.half_precision)

    def require(self) -> None:
        """Import coremltools, which prints and warns.

        Raises:
            ImportError: it is not installed.
        """
        with silenced():
            super().require()

    def prepare(self, module: nn.Module, example: ExampleInput) -> nn.Module:
        """The integer copy of a quantized module; any other module itself.

        Raises:
            ValueError: a quantized module in half precision, or one that was trained for another runtime.
        """
        check_full_precision(module, self.suffix)
        if not is_quantized(module):
            return module
        check_fits(module, profiles.CoreML())
        args, kwargs = as_arguments(example)
        return lower(module, args, kwargs, signed=True)

    def write(self, module: nn.Module, example: ExampleInput, path: Path) -> None:
        """Convert ``module``, compress its weights, compare them, and save the package.

        Raises:
            ValueError: Core ML lacks one of the operations, or a form would change a weight.
        """
        module, example = on_cpu(module, example)
        with silenced():
            program = trace(module, example, self.largest_batch).run_decompositions({})
            lacking, changed = self._save(program, module, path)
        if lacking:
            raise ValueError(
                f"need operations that Core ML computes to write {path.name}, got {lacking}: write .onnx or .pt2"
            )
        if changed:
            raise ValueError(
                f"need {path.name} to hold the weights exactly, got others in {listed(changed)}: write .onnx"
            )
        for file in path.iterdir():  # coremltools adds a table of the operations of the trace
            if file.name not in self.entries:
                file.unlink()

    def check(self, module: nn.Module, example: ExampleInput, path: Path) -> None:
        """Run the package where Core ML runs, and compare the outputs.

        Raises:
            ValueError: an output differs by more than the tolerance.
        """
        if sys.platform == "darwin":
            super().check(module, example, path)
            return
        warnings.warn(
            f"Core ML runs on Apple machines alone: {path.name} was converted, and its weights were compared, but it "
            "was not run; compare its outputs there before you ship it",
            stacklevel=3,
        )

    def run(self, example: ExampleInput, path: Path) -> list[Tensor]:
        """Run the package in Core ML, on macOS."""
        import coremltools

        with silenced():
            model = coremltools.models.MLModel(str(path))
            description = model.get_spec().description
            args, kwargs = as_arguments(example)
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            names = [entry.name for entry in description.input]
            arrays = (tensor.detach().cpu().numpy() for tensor in tensors)
            found = model.predict(dict(zip(names, arrays, strict=True)))
        return [torch.from_numpy(np.asarray(found[entry.name])) for entry in description.output]

    def _inexact(self, module: nn.Module, held: Mapping[str, Array]) -> list[str]:
        """Names of the layers of integer weights that a package does not hold; scales in float16 are rounded."""
        layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, QuantizedLayer)}
        weights = {
            name: layer.integers.outputs_first.detach().numpy().ravel()
            for name, layer in layers.items()
            if layer.integers.of_channels and not self.half_precision
        }
        values = [one.ravel() for one in held.values()]
        return [name for name, weight in weights.items() if not any(np.array_equal(weight, one) for one in values)]

    def _save(self, program: ExportedProgram, module: nn.Module, path: Path) -> tuple[str, list[str]]:
        """Convert and save a program: what Core ML lacks, if anything, and the names of weights that have changed."""
        try:
            plain = self._converted(program, fusing=not _shares_values(module))
        except Exception as error:  # of many kinds; its frames hold a folder, whose end warns, as long as they live
            return line_of(error), []
        _compressed(plain).save(str(path))
        held = _compressed_weights(path)
        return "", _changed(_constants(plain), held) + self._inexact(module, held)

    def _converted(self, program: ExportedProgram, *, fusing: bool) -> Any:
        import coremltools

        passes = coremltools.PassPipeline.DEFAULT
        if not fusing:
            passes.remove_passes({_FUSING})
        precision = coremltools.precision.FLOAT16 if self.half_precision else coremltools.precision.FLOAT32
        return coremltools.convert(
            program,
            minimum_deployment_target=coremltools.target.iOS18,
            compute_precision=precision,
            pass_pipeline=passes,
        )


def _shares_values(module: nn.Module) -> bool:
    """Whether a weight has few distinct values: a batch normalization that is folded into it would make them many."""
    weights = (parameter for parameter in module.parameters() if parameter.ndim > 1 and parameter.numel() > 4 * _FEWEST)
    return any(torch.unique(weight.detach()).numel() <= 2 ** _PALETTES[-1] for weight in weights)


def _compressed(model: Any) -> Any:
    """The model with palettes and without zeros, where these are smaller than floats."""
    from coremltools.optimize import coreml

    constants = _constants(model)
    forms = {name: smallest_form(values) for name, values in constants.items() if values.size >= _FEWEST}
    zeros = coreml.OpThresholdPrunerConfig(threshold=_LEAST, minimum_sparsity_percentile=0.0, weight_threshold=1)
    sparse = {name: zeros for name, form in forms.items() if form.endswith("sparse")}
    palettes: dict[str, dict[str, Any]] = {"palette": {}, "palette, sparse": {}}
    for name, form in forms.items():
        if form in palettes:
            key = f"{name}_sparsified" if form == "palette, sparse" else name
            palettes[form][key] = coreml.OpPalettizerConfig(mode="unique", weight_threshold=1)
    if sparse:
        model = coreml.prune_weights(model, coreml.OptimizationConfig(op_name_configs=sparse))
    for form, configs in palettes.items():
        if configs:
            config = coreml.OptimizationConfig(op_name_configs=configs)
            model = coreml.palettize_weights(model, config, joint_compression=form != "palette")
    return model


def smallest_form(values: Array) -> str:
    """The form of a weight in which it takes the fewest bits: ``float``, ``palette``, ``sparse`` or both.

    A palette takes an index for each entry, and a sparse form a bit for each entry and what is left for the others.

    >>> smallest_form(np.arange(1000.0)), smallest_form(np.arange(1000.0) % 4)
    ('float', 'palette')
    """
    entry, distinct, nonzero = 8 * values.dtype.itemsize, len(np.unique(values)), values[values != 0]
    bits = next((bits for bits in _PALETTES if 2**bits >= distinct), entry)
    table = entry * 2**bits if bits < entry else 0
    sizes = {
        "float": entry * values.size,
        "palette": bits * values.size + table,
        "sparse": values.size + entry * nonzero.size,
        "palette, sparse": values.size + bits * nonzero.size + table,
    }
    if np.abs(nonzero).min(initial=1.0) < _LEAST:
        sizes = {form: size for form, size in sizes.items() if not form.endswith("sparse")}
    return min(sizes, key=lambda form: sizes[form])


def _constants(model: Any) -> dict[str, Array]:
    """The weights of a model that layers read as plain constants, by name."""
    from coremltools.optimize import coreml

    found = coreml.get_weights_metadata(model, weight_threshold=1).items()
    return {name: one.val for name, one in found if not one.child_ops[0].op_type.startswith("constexpr")}


def _compressed_weights(path: Path) -> dict[str, Array]:
    """The values of the weights that a package holds in compressed forms, by name."""
    import coremltools
    from coremltools.converters.mil.frontend.milproto import load

    model = coremltools.models.MLModel(str(path), skip_model_load=True)
    specification = model.get_spec()
    program = load.load(specification, specification.specificationVersion, model.weights_dir)
    operations = (one for function in program.functions.values() for one in function.operations)
    values = {one.name: one.materialized_val_inference() for one in operations if one.op_type.startswith("constexpr")}
    return {name: value for name, value in values.items() if not isinstance(value, tuple)}


def _changed(constants: Mapping[str, Array], held: Mapping[str, Array]) -> list[str]:
    """Names of the weights whose compressed form, which has a longer name, holds other values."""
    return [
        name
        for name, values in constants.items()
        for compressed, found in held.items()
        if compressed in (f"{name}_palettized", f"{name}_sparsified") and not np.array_equal(values, found)
    ]
