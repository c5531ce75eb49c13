"""Compressed-tensors: the folder of safetensors and ``config.json`` that transformers and vLLM load."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.deploy.formats import Writer
from lightning_compress.deploy.runtimes.silence import silenced
from lightning_compress.deploy.writers.archive import bytes_of
from lightning_compress.lowering.modules import check_lowerable
from lightning_compress.messages import listed
from lightning_compress.quantization.activations.quantizers import RowQuantizer, quantizers_of
from lightning_compress.quantization.grids import AffineGrid, precise
from lightning_compress.quantization.weights import grids_of

__all__ = ["CompressedTensors", "Packed", "packed"]

_TOKENS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}


@dataclass(frozen=True)
class CompressedTensors(Writer):
    """Writes a model of transformers as a folder with packed integer weights; the check loads it and compares bits.

    ``AutoModel....from_pretrained(folder)`` and vLLM read the folder: each weight of 1 to 8 bits is packed into 32-bit
    words, with one scale for each output channel or group (``pack-quantized``). Quantized weights of other layers than
    ``nn.Linear``, and tied ones, are written in floating point, with the values of their grids.

    The model is the module itself, or the one model of transformers inside it. Train it with
    ``QATCallback(bits, activation_bits=None)`` or, for linear layers whose inputs are 8-bit integers too
    (``int-quantized``), with ``QATCallback(8, profile=profiles.Dynamic())``.

    >>> CompressedTensors().folder
    True
    """

    suffix = ""
    folder = True
    entries = ("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json")
    needs_example = False
    packages = ("transformers", "compressed_tensors", "huggingface_hub")
    extra = "transformers"

    def prepare(self, module: nn.Module, example: None) -> nn.Module:
        """The model of transformers in ``module``.

        Raises:
            ValueError: there is none, or several; no weight is quantized, or one has zero points; activations have
                fixed ranges, or not 8 bits.
        """
        model = _pretrained(module)
        check_lowerable(model)
        of_rows = {place: isinstance(it, RowQuantizer) and it.bits == 8 for place, it in quantizers_of(module).items()}
        if places := [place.module or "the model" for place, fits in of_rows.items() if not fits]:
            raise ValueError(
                "need activations in float, or in 8 bits with a range for each token, to write a compressed-tensors "
                f"folder, got others at {listed(places)}: train with QATCallback(activation_bits=None) or "
                "QATCallback(profile=profiles.Dynamic())"
            )
        if names := [name for name, grid in grids_of(model).items() if grid.zero_point.any()]:  # type: ignore[attr-defined]
            raise ValueError(
                "need weights with zero points of 0 to write a compressed-tensors folder, which transformers reads "
                f"without, got others in {listed(names)}: train with scale=scales.absmax or scales.mse"
            )
        return model

    def write(self, module: nn.Module, example: None, path: Path) -> None:
        """Write the weights, the configuration of the model, and that of its generation."""
        from huggingface_hub import save_torch_state_dict

        model: Any = module
        parts = _packed_weights(model)
        path.mkdir()
        save_torch_state_dict(_state_dict(model, parts), path)
        config = copy.deepcopy(model.config)
        config.architectures = [type(model).__name__]
        config.quantization_config = _description(model, parts)
        config.save_pretrained(path)
        if model.can_generate():
            model.generation_config.save_pretrained(path)

    def check(self, module: nn.Module, example: None, path: Path) -> None:
        """Load the folder by transformers, unpack the weights, and compare their bytes.

        Raises:
            ValueError: a tensor differs.
        """
        model: Any = _pretrained(module)
        with silenced():
            loaded = type(model).from_pretrained(path, dtype=model.dtype)
            loaded.hf_quantizer.compressor.decompress_model(loaded)  # else the first forward pass does it
        have = loaded.state_dict()
        for name, want in model.state_dict().items():
            if name not in have or not torch.equal(bytes_of(have[name]), bytes_of(want)):
                raise ValueError(
                    f"need {path.name} to hold the weights bit for bit, got another {name!r}: train the model with "
                    "precision='bf16-mixed' or '32-true'"
                )


@dataclass(frozen=True, eq=False)
class Packed:
    """A weight as the format holds it.

    Attributes:
        bits: of a code.
        group_size: inputs that share a scale; None if an output channel has one.
        codes: ``(out, in)`` int8, in ``[-2^(bits - 1), 2^(bits - 1))``.
        scale: ``(out, groups)``.
        dynamic: whether the inputs of the layer are 8-bit integers, with a range for each token.
    """

    bits: int
    group_size: int | None
    codes: Tensor
    scale: Tensor
    dynamic: bool = False

    @property
    def format(self) -> str:
        """How the weight is stored: as int8 where kernels multiply it by integers, else in 32-bit words."""
        return "int-quantized" if self.dynamic and self.bits == 8 else "pack-quantized"


def packed(weight: Tensor, grid: AffineGrid, *, dynamic: bool = False) -> Packed:
    """Codes and scales of a weight ``(out, in)`` on a grid whose zero points are 0.

    >>> grid = AffineGrid(torch.tensor([[0.5], [2.0]]), torch.zeros(2, 1), -7, 7)
    >>> found = packed(torch.tensor([[0.5, -3.5], [2.0, 0.0]]), grid)
    >>> found.codes.tolist(), found.scale.tolist()
    ([[1, -7], [1, 0]], [[0.5], [2.0]])
    """
    outputs, inputs = weight.shape
    groups = math.ceil(grid.rows / outputs)
    scale = grid.scale.reshape(-1, groups).expand(outputs, groups).contiguous()  # one of a whole weight is repeated
    size = inputs // groups if groups > 1 else None
    return Packed(grid.bits, size, grid.codes(precise(weight)).to(torch.int8), scale, dynamic)


def _pretrained(module: nn.Module) -> nn.Module:
    from transformers import PreTrainedModel

    found = {name: part for name, part in module.named_modules() if isinstance(part, PreTrainedModel)}
    prefixes = [f"{name}." if name else "" for name in found]
    outer = [name for name in found if not any(name != own[:-1] and name.startswith(own) for own in prefixes)]
    if len(outer) != 1:
        got = listed(outer) if outer else f"a {type(module).__name__} without one"
        raise ValueError(
            f"need one model of transformers to write a compressed-tensors folder, got {got}: pass it alone"
        )
    return found[outer[0]]


def _packed_weights(model: nn.Module) -> dict[str, Packed]:
    """Name of a linear layer -> its packed weight. Other weights with grids are named in a warning."""
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    owners = [id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)]
    tied = {name for name, owner in zip(names, owners, strict=True) if owners.count(owner) > 1}
    found, floats = {}, []
    rounded = {place.module for place in quantizers_of(model)}
    for name, grid in grids_of(model).items():
        layer, _, key = name.rpartition(".")
        part = model.get_submodule(layer)
        if isinstance(part, nn.Linear) and key == "weight" and name not in tied and isinstance(grid, AffineGrid):
            found[layer] = packed(part.weight.detach(), grid, dynamic=layer in rounded)
        else:
            floats.append(name)
    if floats:
        warnings.warn(
            "a compressed-tensors folder packs untied weights of nn.Linear alone, so these are in floating point: "
            + listed(floats),
            stacklevel=2,
        )
    return found


def _state_dict(model: nn.Module, parts: Mapping[str, Packed]) -> dict[str, Tensor]:
    """The state dict with packed weights in place of the others."""
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    for layer, part in parts.items():
        state[f"{layer}.weight_scale"] = part.scale
        if part.format == "int-quantized":
            state[f"{layer}.weight"] = part.codes
            continue
        shape = state.pop(f"{layer}.weight").shape
        state[f"{layer}.weight_packed"] = pack_to_int32(part.codes, part.bits)
        state[f"{layer}.weight_shape"] = torch.tensor(shape)
    return state


def _description(model: nn.Module, parts: Mapping[str, Packed]) -> dict[str, Any]:
    """The ``quantization_config``: one group of layers for each number of bits and size of groups."""
    schemes: dict[tuple[int, int | None, bool], list[str]] = {}
    for layer, part in parts.items():
        schemes.setdefault((part.bits, part.group_size, part.dynamic), []).append(layer)
    others = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and name not in parts]
    groups = {}
    for number, ((bits, size, dynamic), layers) in enumerate(schemes.items()):
        weights = {"num_bits": bits, "type": "int", "symmetric": True, "group_size": size}
        weights |= {"strategy": "channel" if size is None else "group"}
        # A kind of layer is understood by every reader; names are needed where layers differ.
        group: dict[str, Any] = {"targets": ["Linear"] if len(schemes) == 1 else layers, "weights": weights}
        if dynamic:
            group["input_activations"] = _TOKENS
        groups[f"group_{number}"] = group | {"format": parts[layers[0]].format}
    formats = {group["format"] for group in groups.values()}
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": others,
    }
