import math

import numpy as np
import pytest
import torch

from lightning_compress.pruning import thresholds
from lightning_compress.pruning.thresholds import Threshold, find_threshold, keep
from tests.support.distributed import run_distributed


def masked(tensors, threshold):
    """The scores that are masked, tensor by tensor."""
    found = []
    for scores in tensors:
        kept, threshold = keep(scores, threshold)
        found.append(scores[~kept])
    return found


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
        "minus infinite": [torch.where(normal > 0.5, -math.inf, normal)],
        "few values": [(normal * 3).round()],
        "empty tensor": [torch.zeros(0), normal[:11]],
    }


@pytest.mark.parametrize("fraction", [0.0, 1e-4, 0.3, 0.5, 0.9, 0.9999, 1.0])
@pytest.mark.parametrize("kind", streams())
@pytest.mark.parametrize("few", [64, 1 << 19])
def test_exactly_the_smallest_scores_are_masked(kind, fraction, few, monkeypatch):
    monkeypatch.setattr(thresholds, "_FEW", few)  # small: several rounds; large: none
    tensors = streams()[kind]
    everything = np.sort(torch.cat([t.flatten() for t in tensors]).numpy())
    count = round(fraction * len(everything))
    gone = torch.cat(masked(tensors, find_threshold(lambda: iter(tensors), fraction))).numpy()
    np.testing.assert_array_equal(np.sort(gone), everything[:count])


@pytest.mark.parametrize("ends", [slice(None, 2), slice(-2, None), slice(None, 1), slice(-1, None)])
@pytest.mark.parametrize("fraction", [0.1, 0.9])
def test_a_bracket_that_misses_the_threshold(ends, fraction, monkeypatch):
    monkeypatch.setattr(thresholds, "_FEW", 64)
    monkeypatch.setattr(
        thresholds, "_bracket", lambda sample, quantile: (float(sample[ends][0]), float(sample[ends][-1]))
    )
    scores = torch.arange(5_000.0)
    found = find_threshold(lambda: [scores], fraction)
    assert found == Threshold(fraction * 5_000 - 1, masked=1, equal=1)


def test_equal_scores_are_masked_in_the_order_of_the_stream():
    tensors = [torch.ones(4), torch.zeros(2), torch.ones(2)]
    threshold = find_threshold(lambda: iter(tensors), 5 / 8)
    assert [len(part) for part in masked(tensors, threshold)] == [3, 2, 0]


def test_scores_must_be_numbers():
    with pytest.raises(ValueError, match="need scores that are numbers, got NaN"):
        find_threshold(lambda: [torch.tensor([1.0, math.nan])], 0.5)


def test_the_fraction_must_be_a_fraction():
    with pytest.raises(ValueError, match=r"need 0 <= fraction <= 1, got fraction=1.5"):
        find_threshold(lambda: [torch.ones(1)], 1.5)


def _shards(tensors, fraction):
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        shards = [tensor.flatten().chunk(2)[dist.get_rank()] for tensor in tensors]
        threshold = find_threshold(lambda: iter(shards), fraction, dist.group.WORLD)
        return torch.cat(masked(shards, threshold)).tolist()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("kind", ["normal", "zeros", "few values"])
def test_shards_of_two_processes(kind):
    tensors = streams()[kind]
    everything = np.sort(torch.cat([t.flatten() for t in tensors]).numpy())
    gone = np.sort(np.concatenate(run_distributed(_shards, tensors, 0.37)))
    np.testing.assert_array_equal(gone.astype(np.float32), everything[: round(0.37 * len(everything))])
