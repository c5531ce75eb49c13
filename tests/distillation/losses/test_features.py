"""Losses of features against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_compress.distillation import losses
from tests.distillation.losses.samples import FEATURES_S, FEATURES_T, S, T


def test_mse_and_cosine() -> None:
    s, t = S.numpy(), T.numpy()
    assert losses.mse(S, T).item() == pytest.approx(np.mean((s - t) ** 2), rel=1e-12)
    cosines = (s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)
    assert losses.cosine(S, T).item() == pytest.approx(np.mean(1 - cosines), rel=1e-9)


def test_attention_transfer() -> None:
    def attention(features: np.ndarray) -> np.ndarray:
        energy = (features**2).sum(1).reshape(4, -1)
        return energy / np.linalg.norm(energy, axis=1, keepdims=True)

    expected = ((attention(FEATURES_S.numpy()) - attention(FEATURES_T.numpy())) ** 2).sum(1).mean()
    assert losses.attention_transfer(FEATURES_S, FEATURES_T).item() == pytest.approx(expected, rel=1e-9)


def test_other_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="equal batch and positions"):
        losses.attention_transfer(FEATURES_S, FEATURES_T[..., :4])
