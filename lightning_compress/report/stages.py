"""Stages: how a model became small, as the tables of Deep Compression show it.

Paper: Han, Mao and Dally, "Deep Compression: compressing deep neural networks with pruning, trained quantization and
Huffman coding", https://arxiv.org/abs/1510.00149 (2016), tables 2 to 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_compress.report.profile import LayerProfile, ModelProfile

__all__ = ["Stage", "stages"]


@dataclass(frozen=True)
class Stage:
    """One way to store the model, and the bytes that it takes."""

    name: str
    bytes: int


def stages(before: ModelProfile, after: ModelProfile) -> list[Stage]:
    """What is left after each step; a step that gains nothing is left out.

    Stored are, one after the other, all weights; those of the channels that are left; non-zeros, and a bit for each
    position; codes of fixed width in place of values, and a table of these; the archive. Each tensor takes the cheapest
    way known so far, and buffers are stored as they are.

    >>> layer = LayerProfile("weight", (16,), nonzeros=4, distinct=3, state_bytes=64, archive_bytes=30)
    >>> dense = ModelProfile((layer,), state_bytes=64, archive_bytes=60)
    >>> [(stage.name, stage.bytes) for stage in stages(dense, ModelProfile((layer,), 64, 11))]
    [('dense', 64), ('zeros left out', 18), ('values shared', 11)]
    """
    rest = after.state_bytes - sum(layer.state_bytes for layer in after.layers)
    sparse = sum(min(layer.state_bytes, _sparse(layer)) for layer in after.layers) + rest
    shared = sum(min(layer.state_bytes, _sparse(layer), _shared(layer)) for layer in after.layers) + rest
    found = [Stage("dense", before.state_bytes)]
    for stage in (
        Stage("channels removed", after.state_bytes),
        Stage("zeros left out", sparse),
        Stage("values shared", shared),
        Stage("entropy coded", after.archive_bytes),
    ):
        if stage.bytes < found[-1].bytes:
            found.append(stage)
    return found


def _positions(layer: LayerProfile) -> int:
    return math.ceil(layer.parameters / 8) if layer.nonzeros < layer.parameters else 0


def _sparse(layer: LayerProfile) -> int:
    return _positions(layer) + layer.nonzeros * _itemsize(layer)


def _shared(layer: LayerProfile) -> int:
    values = layer.distinct - (layer.nonzeros < layer.parameters)
    codes = math.ceil(layer.nonzeros * math.ceil(math.log2(max(1, values))) / 8)
    return _positions(layer) + codes + values * _itemsize(layer)


def _itemsize(layer: LayerProfile) -> int:
    return layer.state_bytes // max(1, layer.parameters)
