"""Several methods in one fit: each keeps what the others promised."""

import copy
from itertools import permutations

import pytest
import torch

from lightning_compress import DistillationCallback, PruningCallback, QATCallback, WeightSharingCallback
from lightning_compress.distillation import EMA
from lightning_compress.quantization.granularities import PerChannel, PerTensor
from lightning_compress.quantization.weights import grids_of
from lightning_compress.schedules import Linear, Step
from tests.support.runs import Randomness, resumes, uninterrupted
from tests.support.toys import build, fit

VALUES = 16
SPARSITY = 0.8


def everything(teacher, granularity):
    return [
        PruningCallback(SPARSITY, schedule=Linear(0.1, 0.5), every_n_steps=2),
        WeightSharingCallback(VALUES, schedule=Linear(0.1, 0.6), every_n_steps=4),
        QATCallback(granularity=granularity, schedule=Step(0.3), every_n_steps=3),
        DistillationCallback(teacher, alpha=0.5),
    ]


def weights(module):
    return {name: p.detach() for name, p in module.named_parameters() if p.ndim > 1}


def check(module, per_channel=False):
    """Sparsity, at most 16 values a layer (or channel), all of them on a grid of 8 bits."""
    assert sum(int((w == 0).sum()) for w in weights(module).values()) >= round(
        SPARSITY * sum(w.numel() for w in weights(module).values())
    )
    for name, weight in weights(module).items():
        rows = weight.flatten(1) if per_channel else weight.view(1, -1)
        assert all(len(row.unique()) <= VALUES for row in rows)
        steps = grids_of(module)[name].scale.view(len(rows), 1)
        integers = rows / steps
        torch.testing.assert_close(integers, integers.round(), rtol=0, atol=1e-3)
        assert integers.abs().max() <= 128


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel()])
def test_pruned_shared_quantized_and_taught(granularity):
    module = build()
    again = copy.deepcopy(module)
    fit(module, *everything(again, granularity))
    check(module, isinstance(granularity, PerChannel))


def test_the_order_of_the_callbacks_does_not_matter():
    found = []
    for order in list(permutations(range(3)))[::2]:
        module = build()
        callbacks = everything(copy.deepcopy(module), PerTensor())
        fit(module, *[callbacks[k] for k in order], callbacks[3])
        found.append(module.state_dict())
    for other in found[1:]:
        assert all(torch.equal(found[0][key], other[key]) for key in found[0])


@resumes
def test_a_run_of_all_methods_resumes_bit_identical(tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = build()
        fit(module, *everything(EMA(0.9), PerTensor()), Randomness(), *callbacks, ckpt_path=ckpt_path)
        return module

    check(uninterrupted(run, tmp_path, (10, 30)))
