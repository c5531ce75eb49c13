import math

import numpy as np
import pytest
import torch

from lightning_compress.pruning import thresholds
from lightning_compress.pruning.thresholds import Cut, find_cut, spare
from tests.distributed import run_distributed


def fallen(tensors, cut):
    """Sizes of what falls, tensor by tensor, and the fallen scores."""
    passed, masks = 0, []
    for tensor in tensors:
        mask, passed = spare(tensor, cut, passed)
        masks.append(~mask)
    return [t[m] for t, m in zip(tensors, masks, strict=True)]


def streams():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(30_000, generator=generator).abs()
    return {
        "normal": [normal[:7].view(7), normal[7:20_000], normal[20_000:].view(100, 100)],
        "equal": [torch.ones(50, 3), torch.ones(1)],
        "zeros": [torch.zeros(20_000), normal[:5_000]],
        "crowd inside": [normal[:9_000], torch.full((12_000,), 0.7), torch.full((9_000,), 3.0)],
        "negative": [-normal, torch.randn(100, generator=generator)],
        "infinite": [torch.where(normal > 0.5, math.inf, normal)],
        "few values": [(normal * 3).round()],
        "empty tensor": [torch.zeros(0), normal[:11]],
    }


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.3, 0.5, 0.9, 0.9999, 1.0])
@pytest.mark.parametrize("kind", streams())
@pytest.mark.parametrize("few", [64, 1 << 19])
def test_the_smallest_fall_exactly(kind, share, few, monkeypatch):
    monkeypatch.setattr(thresholds, "_FEW", few)  # small: several rounds; large: none
    tensors = streams()[kind]
    everything = np.sort(torch.cat([t.flatten() for t in tensors]).numpy())
    count = round(share * len(everything))
    gone = torch.cat(fallen(tensors, find_cut(lambda: iter(tensors), share))).numpy()
    np.testing.assert_array_equal(np.sort(gone), everything[:count])


def test_a_misleading_sample_is_found_out(monkeypatch):
    monkeypatch.setattr(thresholds, "_FEW", 64)
    monkeypatch.setattr(thresholds, "_bracket", lambda sample, quantile: (float(sample[0]), float(sample[:2][-1])))
    scores = torch.arange(5_000.0)
    assert find_cut(lambda: [scores], 0.9) == Cut(4_499.0, ties=1, equal=1)


def test_ties_fall_in_the_order_of_the_stream():
    tensors = [torch.ones(4), torch.zeros(2), torch.ones(2)]
    cut = find_cut(lambda: iter(tensors), 5 / 8)
    assert [len(part) for part in fallen(tensors, cut)] == [3, 2, 0]


def test_scores_must_be_numbers():
    with pytest.raises(ValueError, match="need scores that are numbers, got NaN"):
        find_cut(lambda: [torch.tensor([1.0, math.nan])], 0.5)


def test_share_must_be_a_share():
    with pytest.raises(ValueError, match=r"need 0 <= share <= 1, got share=1.5"):
        find_cut(lambda: [torch.ones(1)], 1.5)


def _shards(tensors, share):
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        shards = [tensor.flatten().chunk(2)[dist.get_rank()] for tensor in tensors]
        cut = find_cut(lambda: iter(shards), share, dist.group.WORLD)
        return torch.cat(fallen(shards, cut)).tolist()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("kind", ["normal", "zeros", "few values"])
def test_shards_of_two_processes(kind):
    tensors = streams()[kind]
    everything = np.sort(torch.cat([t.flatten() for t in tensors]).numpy())
    gone = np.sort(np.concatenate(run_distributed(_shards, tensors, 0.37)))
    np.testing.assert_array_equal(gone.astype(np.float32), everything[: round(0.37 * len(everything))])
