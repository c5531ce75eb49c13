import numpy as np
import pytest
import torch

from lightning_compress.metrics import Agreement, Fidelity, Sparsity


def test_sparsity_against_numpy():
    torch.manual_seed(0)
    weights = [torch.randn(7, 5).relu(), torch.zeros(3), torch.ones(2, 2, 2)]
    metric = Sparsity()
    for weight in weights:
        metric.update(weight)
    flat = np.concatenate([weight.numpy().ravel() for weight in weights])
    assert metric.compute().item() == pytest.approx((flat == 0).mean())
    metric.reset()
    metric.update(torch.ones(2))
    assert metric.compute().item() == 0.0


@pytest.mark.parametrize("shape", [(20, 4), (6, 4, 3)])
def test_agreement_against_numpy(shape):
    torch.manual_seed(0)
    batches = [(torch.randn(shape), torch.randn(shape)) for _ in range(3)]
    metric = Agreement(dim=1)
    for one, two in batches:
        metric.update(one, two)
    expected = np.mean([one.numpy().argmax(1) == two.numpy().argmax(1) for one, two in batches])
    assert metric.compute().item() == pytest.approx(expected)


def test_agreement_refuses_other_shapes():
    with pytest.raises(
        ValueError,
        match=r"of one shape with at least 2 classes in dimension -1, got \(2, 3\) and \(2, 4\)",
    ):
        Agreement().update(torch.ones(2, 3), torch.ones(2, 4))


def test_classes_may_lie_in_any_dimension():
    tokens, other = torch.randn(2, 6, 5, 4)  # (N, T, classes)
    for metric in (Agreement, Fidelity):
        last, second = metric(dim=-1), metric(dim=1)
        assert last(tokens, other) == pytest.approx(second(tokens.transpose(1, 2), other.transpose(1, 2)))


def test_metrics_of_tokens_against_numpy():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 30, 4), torch.randn(2, 30, 4)
    agreement, fidelity = Agreement(), Fidelity()
    for s, t in zip(student, teacher, strict=True):
        agreement.update(s, t)
        fidelity.update(s, t)
    s, t = student.view(60, 4).double().numpy(), teacher.view(60, 4).double().numpy()
    p_s, p_t = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (s, t))
    assert agreement.compute().item() == pytest.approx((s.argmax(1) == t.argmax(1)).mean())
    assert fidelity.compute().item() == pytest.approx((p_t * np.log(p_t / p_s)).sum(1).mean(), rel=1e-5)
    with pytest.raises(ValueError, match="of one shape with at least 2 classes"):
        agreement.update(torch.ones(2, 1), torch.ones(2, 1))
