"""Losses of relations against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from lightning_compress.distillation import losses
from tests.distillation.losses.samples import FEATURES_S, FEATURES_T, S, T


def huber(a: np.ndarray, b: np.ndarray) -> float:
    d = np.abs(a - b)
    return float(np.where(d < 1, d**2 / 2, d - 0.5).mean())


def test_relational_distance() -> None:
    d_s, d_t = pdist(FEATURES_S.numpy().reshape(4, -1)), pdist(FEATURES_T.numpy().reshape(4, -1))
    expected = huber(d_s / d_s.mean(), d_t / d_t.mean())
    assert losses.relational_distance(FEATURES_S, FEATURES_T).item() == pytest.approx(expected, rel=1e-9)


def test_relational_angle() -> None:
    def cosines(f: np.ndarray) -> np.ndarray:
        out = np.zeros((6, 6, 6))
        for j in range(6):
            for i in range(6):
                for k in range(6):
                    a, b = f[i] - f[j], f[k] - f[j]
                    size = np.linalg.norm(a) * np.linalg.norm(b)
                    out[j, i, k] = a @ b / size if size else 0.0
        return out

    expected = huber(cosines(S.numpy()), cosines(T.numpy()))
    assert losses.relational_angle(S, T).item() == pytest.approx(expected, rel=1e-9)


def test_similarity_preserving() -> None:
    def similarity(f: np.ndarray) -> np.ndarray:
        g = f.reshape(4, -1) @ f.reshape(4, -1).T
        return g / np.linalg.norm(g, axis=1, keepdims=True)

    difference = similarity(FEATURES_S.numpy()) - similarity(FEATURES_T.numpy())
    expected = np.linalg.norm(difference) ** 2 / 16
    assert losses.similarity_preserving(FEATURES_S, FEATURES_T).item() == pytest.approx(expected, rel=1e-9)


def test_a_single_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 samples"):
        losses.similarity_preserving(S[:1], T[:1])
