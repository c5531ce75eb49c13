"""Adapters: layers that add a small trained matrix to a frozen weight, such as LoRA.

A layer with an adapter computes with ``p + delta``: ``p`` is its weight, and ``delta`` the sum of its adapters,
``s B A`` for LoRA. Compression during training lets ``p`` hold ``P(latent + delta) - delta``, so that the layer
computes with ``P(latent + delta)``: the weight that it has once the adapter is merged. The gradient reaches ``A`` and
``B`` through the layer as it is (straight-through).

Layers of PEFT are recognized. :func:`declare` names the sum of a layer of your own or of another package.

Paper: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", https://arxiv.org/abs/2106.09685 (2021).
"""

from lightning_compress.adapters.callback import HalfLatents
from lightning_compress.adapters.merging import merge
from lightning_compress.adapters.paths import AdditivePath, additive_paths, declare

__all__ = ["AdditivePath", "HalfLatents", "additive_paths", "declare", "merge"]
