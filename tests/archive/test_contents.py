import numpy as np
import pytest
import torch
from scipy import stats

from lightning_compress.archive import ArchiveError, inspect_archive, save_archive


@pytest.fixture
def contents(tmp_path):
    generator = torch.Generator().manual_seed(0)
    integers = torch.randn(100, 120, generator=generator).mul(20).round().long()
    weight = torch.randn(200, 100, generator=generator)
    save_archive(
        {
            "grid": integers * torch.tensor(0.013),
            "sparse": torch.where(weight.abs() > 1.6, weight, 0.0),
            "dense": weight,
            "tied": weight,
            "bias": weight[0].clone(),
            "gamma": weight[1, :50].clone(),
            "none": torch.empty(0, 4),
        },
        tmp_path / "m.lcz",
    )
    contents = inspect_archive(tmp_path / "m.lcz")
    return contents, {tensor.name: tensor for tensor in contents.tensors}, integers


def test_every_tensor_is_listed(contents):
    contents, named, _ = contents

    assert list(named) == ["grid", "sparse", "dense", "tied", "bias", "gamma", "none"]
    assert [t.form for t in named.values()] == [
        "grid",
        "sparse",
        "dense",
        "tied",
        "packed",
        "packed",
        "packed",
    ]
    assert named["none"].shape == (0, 4)
    assert named["bias"].dtype == torch.float32


def test_totals(contents, tmp_path):
    contents, _, _ = contents

    assert contents.file_bytes == (tmp_path / "m.lcz").stat().st_size
    assert contents.dense_bytes == 4 * (12_000 + 20_000 + 20_000 + 150)
    assert contents.ratio == contents.dense_bytes / contents.file_bytes
    assert 50 < contents.file_bytes - sum(tensor.bytes for tensor in contents.tensors) < 120
    assert contents.entropy_bytes == sum(tensor.entropy_bytes for tensor in contents.tensors)


def test_the_bound_is_the_entropy_and_the_scale(contents):
    _, named, integers = contents
    counts = np.unique(integers.numpy(), return_counts=True)[1]

    bound = 12_000 * stats.entropy(counts, base=2) / 8 + 4

    assert named["grid"].entropy_bytes == pytest.approx(bound)
    assert bound <= named["grid"].bytes <= 1.01 * bound
    assert named["grid"].bits_per_weight == 8 * named["grid"].bytes / 12_000


def test_packed_tensors_have_their_parts_of_the_block(contents):
    _, named, _ = contents

    assert named["bias"].bytes == pytest.approx(2 * named["gamma"].bytes)
    assert named["none"].bits_per_weight == named["none"].bytes == 0
    assert named["tied"].bytes == named["tied"].entropy_bytes == named["tied"].dense_bytes == 0


def test_a_bad_file_is_refused(tmp_path):
    (tmp_path / "m.lcz").write_bytes(b"not one")

    with pytest.raises(ArchiveError, match="not an archive"):
        inspect_archive(tmp_path / "m.lcz")
