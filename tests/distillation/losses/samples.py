"""Logits and features that the tests of losses share."""

from __future__ import annotations

import torch


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


S, T = normal(6, 5), normal(6, 5, seed=1)
LABELS = torch.tensor([0, 4, 2, 2, 1, 3])
FEATURES_S, FEATURES_T = normal(4, 3, 5, 5), normal(4, 7, 5, 5, seed=1)
