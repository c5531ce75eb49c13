"""Losses against numpy and scipy, and against their limits."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.special import rel_entr, softmax

from lightning_compress.distillation import losses


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


S, T = rows(6, 5), rows(6, 5, seed=1)
LABELS = torch.tensor([0, 4, 2, 2, 1, 3])
FEATURES_S, FEATURES_T = rows(4, 3, 5, 5), rows(4, 7, 5, 5, seed=1)
EVERY = [
    losses.soft_targets,
    losses.correlation,
    losses.mse,
    losses.cosine,
    losses.relational_distance,
    losses.relational_angle,
    losses.similarity_preserving,
    partial(losses.decoupled, labels=LABELS),
]
NAMES = [getattr(loss, "func", loss).__name__ for loss in EVERY]  # with no address: the same in every process


def test_soft_targets() -> None:
    p_s, p_t = softmax(S.numpy() / 3, -1), softmax(T.numpy() / 3, -1)
    expected = 9 * rel_entr(p_t, p_s).sum(-1).mean()
    assert losses.soft_targets(S, T, 3.0).item() == pytest.approx(expected, rel=1e-9)


def test_soft_targets_of_tokens_are_those_of_their_rows() -> None:
    tokens = losses.soft_targets(S.view(2, 3, 5), T.view(2, 3, 5))
    assert tokens.item() == pytest.approx(losses.soft_targets(S, T).item(), rel=1e-12)


def test_decoupled() -> None:
    p_s, p_t = softmax(S.numpy() / 2, -1), softmax(T.numpy() / 2, -1)
    target, others = 0.0, 0.0
    for row, label in enumerate(LABELS.tolist()):
        b_s, b_t = p_s[row, label], p_t[row, label]
        target += rel_entr([b_t, 1 - b_t], [b_s, 1 - b_s]).sum()
        q_s, q_t = np.delete(p_s[row], label), np.delete(p_t[row], label)
        others += rel_entr(q_t / q_t.sum(), q_s / q_s.sum()).sum()
    expected = 4 * (0.5 * target + 3 * others) / 6
    assert losses.decoupled(S, T, LABELS, 0.5, 3.0, 2.0).item() == pytest.approx(expected, rel=1e-9)


def test_decoupled_of_two_classes_has_nothing_to_rank() -> None:
    s, t, labels = S[:, :2], T[:, :2], LABELS % 2
    assert losses.decoupled(s, t, labels).item() == pytest.approx(losses.soft_targets(s, t).item(), rel=1e-9)


def test_correlation() -> None:
    p_s, p_t = softmax(S.numpy() / 2, -1), softmax(T.numpy() / 2, -1)
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p_s, p_t, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p_s.T, p_t.T, strict=True)])
    assert losses.correlation(S, T, 2.0, 3.0, 2.0).item() == pytest.approx(4 * (2 * inter + 3 * intra), rel=1e-9)


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


@pytest.mark.parametrize("loss", EVERY, ids=NAMES)
def test_equal_is_zero_and_descent_leads_there(loss: losses.Loss) -> None:
    assert loss(T, T).item() == pytest.approx(0, abs=1e-12)
    student = S.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(student, T), student)
    assert loss(S - 1e-3 * gradient, T) < loss(S, T)


@pytest.mark.parametrize("loss", EVERY, ids=NAMES)
def test_gradient_is_finite_where_samples_coincide(loss: losses.Loss) -> None:
    student = torch.zeros(6, 5, requires_grad=True)
    loss(student, T.float()).backward()
    assert student.grad.isfinite().all()


def test_half_precision_is_computed_in_single() -> None:
    large = torch.full((2, 3), 500.0, dtype=torch.float16)
    assert losses.mse(large, torch.zeros_like(large)).item() == 250_000


def test_bound_options_are_those_of_the_functions() -> None:
    assert losses.SoftTargets(2.0)(S, T) == losses.soft_targets(S, T, 2.0)
    assert losses.Decoupled(0.5, 2.0, 3.0)(S, T, LABELS) == losses.decoupled(S, T, LABELS, 0.5, 2.0, 3.0)
    assert losses.Correlation(0.5, 2.0, 3.0)(S, T) == losses.correlation(S, T, 0.5, 2.0, 3.0)


@pytest.mark.parametrize("bound", [losses.SoftTargets, losses.Decoupled, losses.Correlation])
def test_temperature_is_checked_when_it_is_bound(bound: type) -> None:
    with pytest.raises(ValueError, match="need temperature > 0, got temperature=0"):
        bound(temperature=0.0)


@pytest.mark.parametrize("loss", [losses.soft_targets, losses.correlation, losses.mse, losses.cosine])
def test_other_shapes_are_refused(loss: losses.Loss) -> None:
    with pytest.raises(ValueError, match=r"one shape, got student \(6, 5\), teacher \(6, 4\)"):
        loss(S, T[:, :4])


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 classes"):
        losses.soft_targets(S[:, :1], T[:, :1])
    with pytest.raises(ValueError, match="one label for each of 6 rows"):
        losses.decoupled(S, T, LABELS[:3])
    with pytest.raises(ValueError, match="equal batch and positions"):
        losses.attention_transfer(FEATURES_S, FEATURES_T[..., :4])
    with pytest.raises(ValueError, match="at least 2 samples"):
        losses.similarity_preserving(S[:1], T[:1])
