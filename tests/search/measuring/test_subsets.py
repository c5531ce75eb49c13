"""The subset is the same in every call, and leaves loaders and random generators alone."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_compress.search.measuring.subsets import count_of, singly, subset

CPU = torch.device("cpu")
PAIR = torch.arange(600.0), torch.arange(600)


def test_a_pair_of_tensors_and_a_loader_give_the_same_examples():
    pair = subset(PAIR, 300, CPU)
    loaded = subset(DataLoader(TensorDataset(*PAIR), batch_size=64), 300, CPU)
    for one, other in zip(zip(*pair, strict=True), zip(*loaded, strict=True), strict=True):
        assert torch.equal(torch.cat(one), torch.cat(other))
    assert count_of(pair) == count_of(loaded) == 300
    assert count_of(subset(PAIR, 10_000, CPU)) == 600


def test_a_shuffled_loader_gives_the_same_examples_in_every_call():
    loader = DataLoader(TensorDataset(*PAIR), batch_size=64, shuffle=True)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = subset(loader, 100, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, subset(loader, 100, CPU), strict=True))


def test_one_by_one_in_batches_of_any_structure():
    batch = {"ids": torch.arange(6).view(3, 2), "nested": [torch.arange(3)], "scale": torch.tensor(2.0), "name": "x"}
    (first, second) = list(singly([batch], 2))
    assert second["ids"].tolist() == [[2, 3]]
    assert second["nested"][0].tolist() == [1]
    assert (float(second["scale"]), second["name"]) == (2.0, "x")
    assert first["ids"].tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (torch.ones(3), TypeError, "need data as a loader of batches or a pair of tensors, got Tensor"),
        (None, TypeError, "need data as a loader of batches or a pair of tensors, got NoneType"),
        ((torch.ones(3), torch.ones(2)), ValueError, "need a pair of tensors of one length, got lengths 3 and 2"),
        ([], ValueError, "need data with at least one example, got none"),
        (["text"], ValueError, "need batches of tensors whose first dimension is the batch, got str"),
    ],
    ids=["tensor", "none", "lengths", "empty", "text"],
)
def test_refusals(data, error, said):
    with pytest.raises(error, match=said):
        subset(data, 5, CPU)
