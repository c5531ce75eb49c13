"""Attention heads: the integer attributes in which attention modules keep their number and width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

__all__ = ["count_heads", "head_attributes", "head_counters"]

_COUNTS = ("num_heads", "num_attention_heads", "num_key_value_heads", "n_heads", "n_head", "heads")  # heads of a module
_WIDTHS = ("all_head_size", "inner_dim", "split_size")  # channels of all heads together


def head_attributes(module: nn.Module) -> dict[str, int]:
    """The attributes of a module that count heads or their channels, with their values.

    >>> head_attributes(nn.MultiheadAttention(8, 2))
    {'num_heads': 2}
    """
    return {key: vars(module)[key] for key in (*_COUNTS, *_WIDTHS) if type(vars(module).get(key)) is int}


def count_heads(name: str, module: nn.Module, producers: Sequence[str], width: int) -> int:
    """The number of attention heads that the channels of a layer are divided into; 0 if it is no part of attention.

    Args:
        name: name of the layer.
        module: the model.
        producers: names of the layers that produce channels coupled with those of this layer. Queries, keys and values
            belong to one module.
        width: number of channels of the layer.
    """
    owner = name.rpartition(".")[0]
    if sum(producer.rpartition(".")[0] == owner for producer in producers) < 2:
        return 0
    attributes = head_attributes(module.get_submodule(owner))
    counts = [attributes[key] for key in _COUNTS if key in attributes]
    return next((count for count in counts if count > 1 and width % count == 0), 0)


def head_counters(name: str, module: nn.Module, heads: int, width: int) -> Iterator[tuple[str, str, int]]:
    """The counters of a group of heads; see :class:`~.groups.Group`.

    Args:
        name: name of a layer of the attention module.
        module: the model.
        heads: number of heads.
        width: number of channels of the layer.
    """
    owner = name.rpartition(".")[0]
    for key, value in head_attributes(module.get_submodule(owner)).items():
        if key in _COUNTS and value == heads:
            yield owner, key, 1
        if key in _WIDTHS and value == width:
            yield owner, key, width // heads
