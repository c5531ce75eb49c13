"""Layers: which modules are layers of torch with weights, and which way round they hold them."""

from __future__ import annotations

from torch import nn

__all__ = ["is_layer", "is_linear", "is_transposed"]

_LAYERS = (
    nn.Linear,
    nn.Bilinear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    nn.Embedding,
    nn.EmbeddingBag,
)


def is_transposed(layer: nn.Module) -> bool:
    """Whether ``layer`` is a linear layer that holds its weight as ``(in, out)``: ``x @ weight + bias``.

    That is ``Conv1D`` of transformers, of which GPT-2 is built, known by its name and by its attribute ``nf``, the
    number of its outputs: the package is not imported.

    >>> is_transposed(nn.Linear(3, 2))
    False
    """
    weight = layer._parameters.get("weight")
    named = any(kind.__name__ == "Conv1D" for kind in type(layer).__mro__)
    return named and hasattr(layer, "nf") and weight is not None and weight.ndim == 2


def is_linear(layer: nn.Module) -> bool:
    """Whether ``layer`` is a linear layer, whichever way round it holds its weight."""
    return isinstance(layer, nn.Linear) or is_transposed(layer)


def is_layer(module: nn.Module) -> bool:
    """Whether ``module`` is a layer of torch with weights, or of a subclass of one, and no module of one's own.

    >>> is_layer(nn.LSTM(2, 2)), is_layer(nn.Sequential())
    (True, False)
    """
    return isinstance(module, _LAYERS) or is_transposed(module)
