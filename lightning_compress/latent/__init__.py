"""Latent weights: the full-precision copies of projected weights.

Between optimizer steps a parameter ``p`` holds the projected weight ``P(latent)``; while its optimizer steps it holds
the latent, which the gradient taken at ``P(latent)`` updates (straight-through). ``training/run.py`` exchanges them::

    restore    p = latent                      just before the optimizer step
    compress   latent = p ; p = P(latent)      just after it

A mask that also masks the gradient needs no exchange: masked entries do not learn, all others equal their latents.

Papers: Courbariaux et al., "BinaryConnect: Training Deep Neural Networks with binary weights during propagations",
https://arxiv.org/abs/1511.00363 (2015); Bai et al., "ProxQuant: Quantized Neural Networks via Proximal Operators",
https://arxiv.org/abs/1810.00861 (2018); Lin et al., "Dynamic Model Pruning with Feedback",
https://arxiv.org/abs/2006.07253 (2020).
"""

from lightning_compress.latent.projections import Projection
from lightning_compress.latent.weights import LatentWeights

__all__ = ["LatentWeights", "Projection"]
