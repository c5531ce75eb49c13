"""What several tests of the archive share."""

import pytest
import torch


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.lcz"


@pytest.fixture
def model():
    """A small one with every form, a tie, and what small networks have."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(20, 12, generator=generator)
    step = weight.abs().amax(1, keepdim=True) / 7
    return {
        "grid.weight": (weight / step).round() * step,
        "columns.weight": ((weight / step).round() * step).t().contiguous(),
        "palette": torch.tensor([0.1, -0.7, 0.33])[torch.randint(3, (9, 9), generator=generator)],
        "sparse": torch.where(torch.rand(200, generator=generator) < 0.1, torch.randn(200, generator=generator), 0.0),
        "dense.weight": weight,
        "dense.bias": torch.randn(5, generator=generator),
        "tied": weight,
        "steps": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "mask": torch.rand(40, generator=generator) < 0.5,
    }
