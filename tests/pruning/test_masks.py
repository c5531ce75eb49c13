import math

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from lightning_compress.pruning.masks import apply_, densities, mask_of
from tests.support.distributed import run_distributed

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


def test_densities_are_fractions_of_whole_parameters():
    kept = torch.arange(5 * 10_000).view(5, -1) < 10_000  # a large mask takes a byte for each entry
    parameters = {"small": torch.ones(5), "large": torch.ones(5, 10_000), "empty": torch.ones(0, 3)}
    masks = {
        "small": mask_of(KEPT, parameters["small"]),
        "large": mask_of(kept, parameters["large"]),
        "empty": mask_of(torch.ones(0, 3, dtype=torch.bool), parameters["empty"]),
    }
    assert densities(masks, parameters) == {"small": 0.4, "large": 0.2, "empty": 1.0}


def _sharded():
    with_shards = nn.Linear(3, 5)  # three rows here, two there
    dist.init_process_group("gloo")
    try:
        weight = next(fully_shard(with_shards, mesh=init_device_mesh("cpu", (2,))).parameters())
        rows = dist.get_rank() * 3, dist.get_rank() * 3 + len(weight.to_local())
        kept = (torch.arange(15).view(5, 3) % 5 == 0)[slice(*rows)]
        masks = {"sharded": mask_of(kept, weight.to_local()), "whole": mask_of(KEPT, torch.zeros(5))}
        return densities(masks, {"sharded": weight, "whole": torch.zeros(5)})
    finally:
        dist.destroy_process_group()


def test_processes_agree_on_densities():
    assert run_distributed(_sharded) == [{"sharded": 0.2, "whole": 0.4}] * 2
