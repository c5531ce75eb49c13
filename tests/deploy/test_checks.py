"""Checks: near is what the rounding of activations explains."""

import pytest
import torch
from torch import nn

from lightning_compress.deploy.checks import check_equal, check_near
from lightning_compress.quantization import QATCallback
from lightning_compress.quantization.activations.quantizers import quantizers_of
from tests.support.classifiers import Classifier, fit, loader

IMAGES = torch.cat([x for x, _ in loader()])


@pytest.fixture(scope="module")
def coarse():
    """Activations of 4 bits: their rounding moves outputs by more than 1 %."""
    module = Classifier()
    fit(module, QATCallback(8, activation_bits=4))
    return module.eval()


@torch.no_grad()
def test_near_is_what_rounding_explains(coarse):
    want = coarse(IMAGES)
    for quantizer in quantizers_of(coarse).values():
        quantizer.enabled = False
    noise = (coarse(IMAGES) - want).abs().mean()
    for quantizer in quantizers_of(coarse).values():
        quantizer.enabled = True
    assert noise > 0.01 * want.abs().max()
    check_near("m", coarse, IMAGES, [want + 0.9 * noise])
    with pytest.raises(ValueError, match="need m to compute the same as the quantized module within .* on average"):
        check_near("m", coarse, IMAGES, [want + 1.1 * noise])
    with pytest.raises(ValueError, match="on average"):
        check_near("m", coarse, IMAGES, [want * torch.nan])
    assert all(quantizer.enabled for quantizer in quantizers_of(coarse).values())


@pytest.mark.parametrize("check", [check_equal, check_near])
@torch.no_grad()
def test_other_shapes_are_refused(check):
    with pytest.raises(ValueError, match=r"need m to return outputs of shapes \[\(2, 3\)\], got \[\(2, 4\)\]"):
        check("m", nn.Linear(5, 3), torch.ones(2, 5), [torch.ones(2, 4)])


@torch.no_grad()
def test_equal_has_a_tolerance():
    layer, x = nn.Linear(5, 3), torch.ones(2, 5)
    check_equal("m", layer, x, [layer(x) + 5e-5])
    with pytest.raises(ValueError, match="need m to compute the same as the module within 0.0001, got a difference of"):
        check_equal("m", layer, x, [layer(x) + 1e-3])


class Masked(nn.Module):
    """Scores of what is allowed, minus infinity elsewhere, and which is best and whether it is sure."""

    def forward(self, scores):
        scores = scores.masked_fill(scores < 0, -torch.inf)
        return scores, scores.argmax(1), scores.amax(1) > 2


@pytest.mark.parametrize("check", [check_equal, check_near])
@torch.no_grad()
def test_infinities_integers_and_truths_are_compared(check):
    scores = torch.tensor([[-1.0, 1.0, 2.0], [3.0, -2.0, 1.0]])
    got = [torch.tensor([[-torch.inf, 1, 2], [3, -torch.inf, 1]]), torch.tensor([2, 0]), torch.tensor([False, True])]
    check("m", Masked(), scores, got)
    for index, wrong in [(0, got[0].nan_to_num(neginf=0.0)), (0, got[0] + 0.5), (1, got[1] + 1), (2, ~got[2])]:
        with pytest.raises(ValueError, match="need m to compute the same as"):
            check("m", Masked(), scores, [*got[:index], wrong, *got[index + 1 :]])
