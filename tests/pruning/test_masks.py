import math

import pytest
import torch

from lightning_compress.pruning.masks import apply_, mask_of

KEPT = torch.tensor([True, False, False, False, True])
VALUES = [1.5, -2.0, math.nan, -math.inf, -0.25]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_masked_value_becomes_a_positive_zero(dtype):
    weight = torch.tensor(VALUES, dtype=dtype)
    apply_({"w": mask_of(KEPT, weight)}, {"w": weight})
    assert weight.tolist() == [1.5, 0.0, 0.0, 0.0, -0.25]
    assert torch.signbit(weight).tolist() == [False] * 4 + [True]


def test_tensors_of_another_precision():
    mask = mask_of(KEPT, torch.zeros(5))
    memory = torch.tensor(VALUES, dtype=torch.bfloat16)
    apply_({"w": mask}, {"w": memory})
    assert memory.tolist() == [1.5, 0.0, 0.0, 0.0, -0.25]


def test_tensors_without_a_mask_stay():
    weight, other = torch.ones(5), torch.ones(5)
    apply_({"w": mask_of(KEPT, weight)}, {"other": other})
    assert other.tolist() == weight.tolist() == [1.0] * 5
