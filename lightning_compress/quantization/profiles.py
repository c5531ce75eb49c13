"""Profiles: what the runtime that will run a model needs of its quantized activations, weights and biases.

Runtimes differ in the integers that their kernels take and in the operations that they fuse. A model trained for one
runtime may compute in float, or wrongly, in another. ``QATCallback(profile=...)`` trains the model that the chosen
runtime computes. A profile of your own is a frozen dataclass that inherits from :class:`Profile`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from lightning_compress.arguments import check_flag, signature_repr

__all__ = ["CoreML", "Dynamic", "Mobile", "OnnxRuntime", "OpenVINO", "Profile", "TensorRT"]


class _Named:
    # LightningCLI takes another class in place of a default instance only if not all its bases are dataclasses.
    def __str__(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        return signature_repr(self)


@dataclass(frozen=True, repr=False)
class Profile(_Named):
    """The needs of a runtime; each profile has defaults of its own.

    Args:
        symmetric_activations: ranges of activations are symmetric about zero: the code of zero is 0 as int8, 128 as
            uint8. After a ReLU half of the codes are unused.
        symmetric_weights: the code of the weight zero is 0. Refuses scales such as ``scales.minmax``.
        round_branches: quantizes both inputs of each residual addition, besides the sum.
        fuse_additions: leaves one input of each residual addition in float, that of the convolution which computes the
            sum in its own kernel.
        round_outputs: quantizes the output of each target layer, with its normalization and ReLU, also where no target
            layer reads it, as that of the last layer.
        round_biases: rounds biases to multiples of ``input scale * weight scale``, which kernels add as integers.
        dynamic_activations: quantizes the inputs of linear layers alone, each row (the values of one token) on a
            symmetric range of its own that is found whenever the model runs. No range is observed or stored, and
            convolutions stay float.

    Raises:
        TypeError: an argument is neither True nor False.
        ValueError: ``dynamic_activations`` beside rules for values that are no inputs of linear layers.

    >>> Mobile(round_outputs=1)
    Traceback (most recent call last):
    TypeError: need round_outputs as True or False, got 1
    """

    symmetric_activations: bool = False
    symmetric_weights: bool = False
    round_branches: bool = True
    fuse_additions: bool = False
    round_outputs: bool = False
    round_biases: bool = True
    dynamic_activations: bool = False

    def __post_init__(self) -> None:
        check_flag(**{field.name: getattr(self, field.name) for field in fields(self)})
        others = ("round_branches", "fuse_additions", "round_outputs", "round_biases")
        wrong = [f"{name}=False" for name in others if getattr(self, name)]
        if self.dynamic_activations and wrong:
            raise ValueError(
                f"need {', '.join(wrong)} beside dynamic_activations=True, which quantizes the inputs of linear layers "
                "alone: take profiles.Dynamic()"
            )


@dataclass(frozen=True, repr=False)
class OnnxRuntime(Profile):
    """ONNX Runtime on CPUs, and torch itself: it adds integers where both inputs of an addition are quantized."""


@dataclass(frozen=True, repr=False)
class OpenVINO(Profile):
    """OpenVINO on CPUs: it adds the shortcut of a residual block in the kernel of the convolution, in float."""

    round_branches: bool = False


@dataclass(frozen=True, repr=False)
class TensorRT(Profile):
    """TensorRT on GPUs: int8 with zero points of 0, float biases, and the shortcut of a residual block quantized.

    The rules are those of https://docs.nvidia.com/deeplearning/tensorrt, "Working with Quantized Types".
    """

    symmetric_activations: bool = True
    symmetric_weights: bool = True
    fuse_additions: bool = True
    round_biases: bool = False


@dataclass(frozen=True, repr=False)
class Mobile(Profile):
    """Phones and microcontrollers: ExecuTorch and LiteRT with XNNPACK, TensorFlow Lite Micro.

    Their integer kernels write integers, so that the outputs of the model are quantized too.
    """

    symmetric_weights: bool = True
    round_outputs: bool = True


@dataclass(frozen=True, repr=False)
class CoreML(Profile):
    """Core ML on Apple devices: symmetric int8 weights and activations."""

    symmetric_activations: bool = True
    symmetric_weights: bool = True


@dataclass(frozen=True, repr=False)
class Dynamic(Profile):
    """Linear layers of transformers in ONNX Runtime, transformers and vLLM: each token has a range of its own.

    A few tokens of large language models have values many times as large as others, so that one range for all fits
    none. Integer kernels multiply codes, and scale the sums by the range of each row.
    """

    symmetric_activations: bool = True
    symmetric_weights: bool = True
    round_branches: bool = False
    round_biases: bool = False
    dynamic_activations: bool = True
