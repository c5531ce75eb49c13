"""Stages: the size of a model after each kind of compression, as in the tables of Deep Compression.

Paper: Han, Mao and Dally, "Deep Compression: compressing deep neural networks with pruning, trained quantization and
Huffman coding", https://arxiv.org/abs/1510.00149 (2016), tables 2 to 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_compress.report.measures.profiles import LayerProfile, ModelProfile

__all__ = ["Stage", "stages"]


_WORTHWHILE = 0.99  # of the bytes before: a few zeros from rounding are no stage


@dataclass(frozen=True)
class Stage:
    """One way to store the model, and its size."""

    name: str
    bytes: int


def stages(before: ModelProfile, after: ModelProfile) -> list[Stage]:
    """Size after each stage; a stage that gains less than a hundredth is left out.

    The stages store, one after the other: all weights; the weights of the remaining channels; non-zeros and a bit for
    each position; integers of the trained grid and its scales; codes of fixed width for the distinct values and a table
    of them; the archive. Each tensor is stored in the cheapest way so far. Buffers stay as they are.

    >>> layer = LayerProfile("weight", (16,), nonzeros=4, distinct=3, state_bytes=64, archive_bytes=30)
    >>> dense = ModelProfile((layer,), state_bytes=64, archive_bytes=60)
    >>> [(stage.name, stage.bytes) for stage in stages(dense, ModelProfile((layer,), 64, 11))]
    [('dense', 64), ('zeros left out', 18), ('values shared', 11)]
    """
    found = [Stage("dense", before.state_bytes)]
    least = [layer.state_bytes for layer in after.layers]
    rest = after.state_bytes - sum(least)
    ways = {"channels removed": _dense, "zeros left out": _sparse, "quantized": _quantized, "values shared": _shared}
    for name, way in ways.items():
        least = [min(bytes_, way(layer)) for bytes_, layer in zip(least, after.layers, strict=True)]
        found.append(Stage(name, sum(least) + rest))
    found.append(Stage("entropy coded", after.archive_bytes))
    kept = found[:1]
    for stage in found[1:]:
        if stage.bytes < _WORTHWHILE * kept[-1].bytes:
            kept.append(stage)
    return kept


def _dense(layer: LayerProfile) -> int:
    return layer.state_bytes


def _positions(layer: LayerProfile) -> int:
    return math.ceil(layer.parameters / 8) if layer.nonzeros < layer.parameters else 0


def _sparse(layer: LayerProfile) -> int:
    return _positions(layer) + layer.nonzeros * _itemsize(layer)


def _quantized(layer: LayerProfile) -> int:
    codes = math.ceil(layer.nonzeros * layer.bits / 8)
    return _positions(layer) + codes + layer.scales * _itemsize(layer)


def _shared(layer: LayerProfile) -> int:
    values = layer.distinct - (layer.nonzeros < layer.parameters)
    codes = math.ceil(layer.nonzeros * math.ceil(math.log2(max(1, values))) / 8)
    return _positions(layer) + codes + values * _itemsize(layer)


def _itemsize(layer: LayerProfile) -> int:
    return layer.state_bytes // max(1, layer.parameters)
