"""State of the factors: against gradients that autograd gives."""

import pytest
import torch
from torch import nn

from lightning_compress.low_rank.factorization import factors
from lightning_compress.low_rank.layers import as_matrix, split_
from lightning_compress.low_rank.optimizers import Split, split_optimizer_
from tests.support.gpt2 import Conv1D


def stepped(kind, layer, **options):
    """Three steps, so that there is state; the optimizer also has a parameter that is not split."""
    optimizer = kind([layer.bias, *(p for p in layer.parameters() if p is not layer.bias)], **options)
    for seed in range(3):
        torch.manual_seed(seed)
        layer.weight.grad, layer.bias.grad = torch.randn_like(layer.weight), torch.randn_like(layer.bias)
        optimizer.step()
    return optimizer


def divide(optimizer, layer, rank=3):
    weight, transposed = layer.weight, isinstance(layer, Conv1D)
    left, right = factors(as_matrix(weight.detach(), transposed), rank)
    state = {key: value.clone() for key, value in optimizer.state[weight].items() if torch.is_tensor(value)}
    split_(layer, left, right)
    first, second = layer.first.weight, layer.second.weight
    split_optimizer_(optimizer, {weight: Split(first, second, left, right, transposed)})
    return state, left, right


@pytest.mark.parametrize("build", [lambda: nn.Linear(12, 10), lambda: nn.Conv2d(4, 10, 3), lambda: Conv1D(10, 12)])
def test_the_mean_gradient_is_that_of_the_factors(build):
    """Autograd through the product of the factors, with the mean gradient of the weight, gives the same."""
    layer = build().double()
    optimizer = stepped(torch.optim.Adam, layer)
    transposed = isinstance(layer, Conv1D)
    state, left, right = divide(optimizer, layer)
    left, right = left.requires_grad_(), right.requires_grad_()
    (left @ right * as_matrix(state["exp_avg"], transposed)).sum().backward()
    means = [optimizer.state[part.weight]["exp_avg"] for part in (layer.first, layer.second)]
    torch.testing.assert_close(means[0].flatten(1), right.grad)
    torch.testing.assert_close(means[1].flatten(1), left.grad)


def test_the_mean_square_is_that_of_independent_gradients():
    """``E[(sum_k l_k g_k)^2] = sum_k l_k^2 E[g_k^2]``, by simulation."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 5).double()
    optimizer = stepped(torch.optim.Adam, layer)
    state, left, right = divide(optimizer, layer, rank=2)
    gradients = torch.randn(20_000, 5, 6, dtype=torch.float64) * state["exp_avg_sq"].sqrt()
    of_first, of_second = (left.T @ gradients).square().mean(0), (gradients @ right.T).square().mean(0)
    torch.testing.assert_close(optimizer.state[layer.first.weight]["exp_avg_sq"], of_first, rtol=0.05, atol=0)
    torch.testing.assert_close(optimizer.state[layer.second.weight]["exp_avg_sq"], of_second, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("kind", "options", "keys"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, {"momentum_buffer"}),
        (torch.optim.AdamW, {"amsgrad": True}, {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}),
        (torch.optim.RMSprop, {"centered": True}, {"step", "square_avg", "grad_avg"}),
        (torch.optim.Adagrad, {}, {"step", "sum"}),
        (torch.optim.Adamax, {}, set()),  # its running maximum is not that of the factors
        (torch.optim.Adafactor, {}, set()),
    ],
)
def test_an_optimizer_goes_on_with_the_factors(kind, options, keys):
    layer = nn.Linear(12, 10)
    optimizer = stepped(kind, layer, **options)
    divide(optimizer, layer)
    first, second, bias = layer.first.weight, layer.second.weight, layer.second.bias
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in (bias, first, second)]
    for part in (first, second):
        assert optimizer.state.get(part, {}).keys() == keys
        assert all(value.shape in ((), part.shape) for value in optimizer.state.get(part, {}).values())
    assert bias in optimizer.state
    before = first.detach().clone()
    layer(torch.randn(4, 12)).square().sum().backward()
    optimizer.step()
    optimizer.step()
    assert not torch.equal(first, before)
    numbers = [value for part in (first, second) for value in [optimizer.state[part].get("step")] if value is not None]
    assert all(int(number) in (2, 5) for number in numbers)
    optimizer.load_state_dict(optimizer.state_dict())


def test_a_weight_without_state():
    layer = nn.Linear(12, 10)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    divide(optimizer, layer)
    assert len(optimizer.param_groups[0]["params"]) == 3
    assert not optimizer.state
