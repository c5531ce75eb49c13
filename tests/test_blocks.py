"""Blocks hold every element once, and are as small as asked; bundles hold every small tensor once."""

import math

import pytest
import torch

from lightning_compress import blocks as module
from lightning_compress.blocks import blocks, bundles, row_blocks, stacked


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "_ON_CPU", 12)


LAYOUTS = {
    "vector": lambda: torch.arange(40.0),
    "matrix": lambda: torch.arange(60.0).view(5, 12),
    "transposed": lambda: torch.arange(60.0).view(12, 5).t(),
    "channels last": lambda: torch.arange(96.0).view(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "one row": lambda: torch.arange(40.0).view(1, 40),
    "small": lambda: torch.arange(6.0).view(2, 3),
    "scalar": lambda: torch.tensor(3.0),
    "empty": lambda: torch.zeros(0, 4),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_element_is_in_one_block(layout):
    tensor = LAYOUTS[layout]()
    counted = torch.zeros_like(tensor, dtype=torch.int)
    found = []
    for part, count in blocks(tensor, counted):
        assert part.shape == count.shape
        assert part.numel() <= max(12, math.prod(sorted(tensor.shape)[1:]))  # a slice is not divided
        found += part.flatten().tolist()
        count += 1
    assert sorted(found) == sorted(tensor.flatten().tolist())
    assert (counted == 1).all()


@pytest.mark.parametrize("shape", [(7, 3), (1, 50), (0, 3), (5,), (40, 1), (9, 0)])
@pytest.mark.parametrize("multiple", [1, 2, 4])
def test_runs_of_rows_follow_each_other(shape, multiple):
    rows = torch.zeros(shape)
    runs = list(row_blocks(rows, multiple))
    assert [row for run in runs for row in range(shape[0])[run]] == list(range(shape[0]))
    assert all(run.start % multiple == 0 for run in runs)
    assert len(runs) >= 1


def test_bundles_hold_tensors_of_one_kind_up_to_the_size_of_a_block(monkeypatch):
    monkeypatch.setattr(module, "_LEAST", 3)
    small = {f"small {i}": torch.zeros(2, 2) for i in range(7)}
    others = {
        "wide": torch.zeros(2, 2).double(),
        "long": torch.zeros(4, 1),
        "large": torch.zeros(5),
        "none": torch.zeros(0),
    }
    found = bundles({**small, **others, "none": torch.zeros(0)}, lambda name: name == "small 1")
    assert found[:4] == [["small 0", "small 2", "small 3"], ["small 1"], ["small 4", "small 5", "small 6"], ["wide"]]
    assert found[4:] == [["long"], ["large"], ["none"]]


def test_one_tensor_is_not_copied():
    one = torch.arange(6.0).view(2, 3)
    assert stacked([one]).data_ptr() == one.data_ptr()
    assert torch.equal(stacked([one, one + 1])[1], one + 1)
