import pytest
import torch
from torch import nn

from lightning_compress.quantization import QATCallback
from lightning_compress.quantization.activations.quantizers import ActivationQuantizer, quantizers_of
from lightning_compress.quantization.activations.ranges import RangeOptimizer
from lightning_compress.schedules import Constant, Step
from tests.support.classifiers import Classifier, Conv, ResNet, loader, trainer


def quantizer(bits: int, low: float, high: float) -> ActivationQuantizer:
    return ActivationQuantizer(bits, torch.tensor(low), torch.tensor(high))


@pytest.mark.parametrize("zero_point", [0, 3])
def test_the_gradient_of_the_range_is_that_of_the_native_operator(zero_point):
    generator = torch.Generator().manual_seed(0)
    x, weights = 3 * torch.randn(500, generator=generator), torch.randn(500, generator=generator)
    learned = quantizer(4, -0.25 * zero_point, 0.25 * (15 - zero_point))
    learned.positive = zero_point == 0
    learned.learn(True)
    (learned.quantize(x) * weights).sum().backward()
    low, high = (bound.detach().clone().requires_grad_() for bound in (learned.low, learned.high))
    scale = ((high - low) / 15).view(1)
    native = torch._fake_quantize_learnable_per_tensor_affine(x, scale, -low / scale, 0, 15, 1.0)
    assert torch.equal(learned.quantize(x), native)
    (native * weights).sum().backward()
    torch.testing.assert_close(learned.high.grad, high.grad)
    if zero_point:
        torch.testing.assert_close(learned.low.grad, low.grad)
    else:
        assert learned.low.grad is None


@pytest.mark.parametrize("low", [0.0, -6.0])
def test_ranges_are_learned_up_to_the_best(low):
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0)).clamp(min=low)

    def error(of: ActivationQuantizer) -> torch.Tensor:
        return (of.quantize(x) - x).square().mean()

    learned, optimizer = quantizer(4, low, 6.0), RangeOptimizer(0.01)
    learned.learn(True)
    for _ in range(200):
        error(learned).backward()
        gradients = [torch.zeros(()) if b.grad is None else b.grad for b in (learned.low, learned.high)]
        with torch.no_grad():
            moved = optimizer.moved(torch.stack([learned.low, learned.high])[None], torch.stack(gradients)[None])
            learned.low.copy_(moved[0, 0])
            learned.high.copy_(moved[0, 1])
        learned.low.grad = learned.high.grad = None
        learned.rescale()
    least = min(error(quantizer(4, low * fraction, 6 * fraction)) for fraction in torch.linspace(0.2, 1, 161).tolist())
    assert error(learned) < 1.02 * least < 0.8 * error(quantizer(4, low, 6.0))


def test_steps_know_no_units():
    ranges = torch.tensor([[-1.0, 3.0]])
    one, other = RangeOptimizer(0.01), RangeOptimizer(0.01)
    for gradient in (torch.tensor([[0.3, -0.7]]), torch.tensor([[0.1, 0.2]])):
        torch.testing.assert_close(1000 * one.moved(ranges, gradient), other.moved(1000 * ranges, 64 * gradient))
    moved = RangeOptimizer(0.01).moved(ranges, torch.tensor([[float("nan"), float("inf")]]))
    assert torch.equal(moved, ranges)


def train(callback: QATCallback, batches: int = 8, size: int = 16, **settings: object) -> Classifier:
    torch.manual_seed(0)
    module = Classifier()
    trainer(callback, **settings).fit(module, loader(batches, size), loader(2))
    return module


def highs(module: nn.Module) -> torch.Tensor:
    return torch.stack([quantizer.high for quantizer in quantizers_of(module).values()])


def test_gradients_of_ranges_add_up_like_those_of_weights():
    callback = QATCallback(4, activation_bits=4, observer=_of_all, range_lr=0.02, every_n_steps=1)
    whole, halves = train(callback), train(callback, 16, 8, accumulate_grad_batches=2)
    assert (highs(whole) != 2).all()
    torch.testing.assert_close(highs(halves), highs(whole))


def _of_all(x: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A range that does not depend on the batch, so that what is learned is all that moves it."""
    return torch.tensor(-2.0).clamp(min=float(x.min().sign()) * 2), torch.tensor(2.0)


def test_ranges_follow_the_observer_until_they_are_learned():
    learned = train(
        QATCallback(4, activation_bits=4, range_lr=0.02, every_n_steps=1, schedule=Step(at=0.8), freeze_ranges_at=0.8)
    )
    observed = train(QATCallback(4, activation_bits=4, every_n_steps=1, schedule=Step(at=0.8), freeze_ranges_at=0.8))
    assert torch.equal(highs(learned), highs(observed))
    learned = train(
        QATCallback(4, activation_bits=4, range_lr=0.02, every_n_steps=1, schedule=Step(at=0.8), freeze_ranges_at=0.9)
    )
    assert not torch.equal(highs(learned), highs(observed))


def test_a_branch_that_begins_at_zero_gets_a_range():
    class Zero(Conv):
        def __init__(self) -> None:
            super().__init__()
            self.net = ResNet()
            for block in self.net.blocks:
                nn.init.zeros_(block.bn2.weight)

    module = Zero()
    trainer(QATCallback(range_lr=0.02, every_n_steps=1, schedule=Constant())).fit(module, loader(), loader(2))
    ends = [q for place, q in quantizers_of(module).items() if place.module.endswith("bn2")]
    assert len(ends) == 3
    assert all(end.low < 0 < end.high and not end.positive for end in ends)


def test_the_state_dict_and_the_quantizers_stay_plain():
    module = train(QATCallback(4, activation_bits=4, range_lr=0.02, every_n_steps=1))
    assert set(module.state_dict()) == set(Classifier().state_dict())
    assert not any(q.low.requires_grad or q.high.requires_grad for q in quantizers_of(module).values())
