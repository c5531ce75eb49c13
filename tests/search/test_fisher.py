"""The diagonal Fisher information against loops over single examples, and against a model solved by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_compress.search import OfOutputs, diagonal_fisher, second_order_cost
from lightning_compress.search.fisher import gradient_moments
from lightning_compress.search.measuring.subsets import singly

LOSS = OfOutputs(F.cross_entropy)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def data(count=20):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, generator=generator), torch.randint(0, 3, (count,), generator=generator)


def test_the_mean_of_squared_gradients_of_single_examples():
    module, (x, y) = net(), data()
    found = gradient_moments(module, singly([(x, y)], len(x)), LOSS)
    reference = net().eval()
    parameters = dict(reference.named_parameters())
    gradients = [
        torch.autograd.grad(F.cross_entropy(reference(x[i : i + 1]), y[i : i + 1]), list(parameters.values()))
        for i in range(len(x))
    ]
    for name, parts in zip(parameters, zip(*gradients, strict=True), strict=True):
        torch.testing.assert_close(found.square[name], torch.stack(parts).square().mean(0))
        torch.testing.assert_close(found.mean[name], torch.stack(parts).mean(0))
    assert found.examples == 20
    assert diagonal_fisher(module, singly([(x, y)], 20), LOSS).keys() == parameters.keys()


def test_a_linear_model_by_hand():
    """For squared errors 1/2 (w x - y)^2 the gradient of an example is (w x - y) x."""
    layer = nn.Linear(2, 1, bias=False)
    x, y = torch.tensor([[1.0, 2.0], [0.5, -1.0]]), torch.tensor([[1.0], [2.0]])
    found = diagonal_fisher(layer, singly([(x, y)], 2), OfOutputs(lambda out, target: 0.5 * F.mse_loss(out, target)))
    errors = x @ layer.weight.detach().T - y
    torch.testing.assert_close(found["weight"], ((errors * x) ** 2).mean(0, keepdim=True))


def test_the_module_is_left_alone():
    module, (x, y) = net(), data()
    module[0].weight.grad = torch.ones_like(module[0].weight)
    module[4].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random = torch.get_rng_state()
    diagonal_fisher(module, singly([(x, y)], 20), LOSS)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [part.training for part in module] == [True, True, True, True, False]
    assert torch.equal(module[0].weight.grad, torch.ones_like(module[0].weight))
    assert module[4].weight.grad is None
    assert torch.equal(torch.get_rng_state(), random)


def test_named_parameters_alone():
    module, (x, y) = net(), data()
    whole = diagonal_fisher(module, singly([(x, y)], 20), LOSS)
    part = diagonal_fisher(module, singly([(x, y)], 20), LOSS, ["4.weight"])
    assert part.keys() == {"4.weight"}
    assert torch.equal(part["4.weight"], whole["4.weight"])


def test_a_parameter_that_takes_no_part_has_no_information():
    module = nn.ModuleDict({"used": nn.Linear(6, 3), "idle": nn.Linear(2, 2)})
    found = diagonal_fisher(module, singly([data()], 20), lambda module, batch: LOSS(module["used"], batch))
    assert not found["idle.weight"].any()
    assert found["used.weight"].all()


def test_the_cost_is_half_the_weighted_squared_change():
    fisher, weight = torch.rand(5, 4), torch.randn(5, 4)
    projected = weight.round()
    expected = 0.5 * float((fisher * (weight - projected) ** 2).sum())
    assert second_order_cost(fisher, weight, projected) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("names", "loss", "count", "said"),
    [
        (["5.weight"], LOSS, 20, "need names of parameters of the module, got 5.weight; there are: 0.weight"),
        (["1.bias"], LOSS, 20, "need parameters that require a gradient, got frozen ones: 1.bias"),
        ([], LOSS, 20, "need a parameter that requires a gradient, got none"),
        (None, LOSS, 0, "need at least one example"),
        (None, lambda module, batch: module(batch[0]), 20, r"need a loss of one number .*, got a tensor \(1, 3\)"),
        (None, lambda module, batch: 0.5, 20, "need a loss of one number that depends on the parameters, got 0.5"),
        (None, lambda module, batch: torch.ones(()), 20, r"got a tensor \(\) without a gradient"),
    ],
    ids=["unknown", "frozen", "empty", "no examples", "many numbers", "no tensor", "constant"],
)
def test_refusals(names, loss, count, said):
    module = net()
    module[1].bias.requires_grad = False
    with pytest.raises(ValueError, match=said):
        gradient_moments(module, singly([data()], count), loss, names)
