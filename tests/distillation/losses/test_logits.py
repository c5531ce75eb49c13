"""Losses of logits against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from lightning_compress.distillation import losses
from tests.distillation.losses.samples import LABELS, S, T


def test_soft_targets() -> None:
    p_s, p_t = softmax(S.numpy() / 3, -1), softmax(T.numpy() / 3, -1)
    expected = 9 * rel_entr(p_t, p_s).sum(-1).mean()
    assert losses.SoftTargets(3.0)(S, T).item() == pytest.approx(expected, rel=1e-9)


def test_soft_targets_of_tokens_are_those_of_their_rows() -> None:
    tokens = losses.SoftTargets()(S.view(2, 3, 5), T.view(2, 3, 5))
    assert tokens.item() == pytest.approx(losses.SoftTargets()(S, T).item(), rel=1e-12)


def test_decoupled() -> None:
    p_s, p_t = softmax(S.numpy() / 2, -1), softmax(T.numpy() / 2, -1)
    target, others = 0.0, 0.0
    for row, label in enumerate(LABELS.tolist()):
        b_s, b_t = p_s[row, label], p_t[row, label]
        target += rel_entr([b_t, 1 - b_t], [b_s, 1 - b_s]).sum()
        q_s, q_t = np.delete(p_s[row], label), np.delete(p_t[row], label)
        others += rel_entr(q_t / q_t.sum(), q_s / q_s.sum()).sum()
    expected = 4 * (0.5 * target + 3 * others) / 6
    assert losses.Decoupled(0.5, 3.0, 2.0)(S, T, LABELS).item() == pytest.approx(expected, rel=1e-9)


def test_decoupled_without_labels_takes_the_classes_of_the_teacher() -> None:
    labels = torch.tensor(T.numpy().argmax(-1))
    assert not torch.equal(labels, LABELS)
    assert losses.Decoupled(0.5, 3.0, 2.0)(S, T).item() == losses.Decoupled(0.5, 3.0, 2.0)(S, T, labels).item()


def test_decoupled_of_two_classes_has_nothing_to_rank() -> None:
    s, t, labels = S[:, :2], T[:, :2], LABELS % 2
    assert losses.Decoupled()(s, t, labels).item() == pytest.approx(losses.SoftTargets()(s, t).item(), rel=1e-9)


def test_correlation() -> None:
    p_s, p_t = softmax(S.numpy() / 2, -1), softmax(T.numpy() / 2, -1)
    inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p_s, p_t, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p_s.T, p_t.T, strict=True)])
    assert losses.Correlation(2.0, 3.0, 2.0)(S, T).item() == pytest.approx(4 * (2 * inter + 3 * intra), rel=1e-9)


@pytest.mark.parametrize("loss", [losses.SoftTargets, losses.Decoupled, losses.Correlation])
def test_temperature_is_checked(loss: type) -> None:
    with pytest.raises(ValueError, match="need temperature > 0, got temperature=0"):
        loss(temperature=0.0)
    with pytest.raises(TypeError, match="need temperature as a number, got '2'"):
        loss(temperature="2")


def test_weights_are_numbers() -> None:
    with pytest.raises(TypeError, match="need beta as a number, got '8'"):
        losses.Decoupled(beta="8")
    with pytest.raises(TypeError, match="need gamma as a number, got None"):
        losses.Correlation(gamma=None)


def test_bad_logits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 2 classes.* pass losses=\[losses.mse\]"):
        losses.SoftTargets()(S[:, :1], T[:, :1])
    with pytest.raises(ValueError, match="one label for each of 6 rows"):
        losses.Decoupled()(S, T, LABELS[:3])
