"""Mutated records of every method end in RecordError, or load a module of the same sizes; nothing else, and quickly."""

import random

import pytest
import torch

from lightning_compress import (
    ChannelPruningCallback,
    LowRankCallback,
    QATCallback,
    RecordError,
    load_compressed,
)
from lightning_compress.schedules import Linear
from tests.support.hostile import mutated_record
from tests.support.toys import Digits, Residual, build, digits, fit

RAMP = {"schedule": Linear(0.1, 0.6), "every_n_steps": 3}
KINDS = {
    "quantization": (Digits, lambda: [QATCallback()]),
    "channels": (Residual, lambda: [ChannelPruningCallback(0.15, round_to=4, remove_blocks=True, **RAMP)]),
    "low_rank": (Digits, lambda: [LowRankCallback(**RAMP)]),
}


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory):
    kind, callbacks = KINDS[request.param]
    path = tmp_path_factory.mktemp(request.param) / "m.ckpt"
    fit(build(kind=kind), *callbacks()).save_checkpoint(path, weights_only=True)
    return kind, path, torch.load(path, weights_only=True)


@pytest.mark.filterwarnings("ignore:.*is a bool")
def test_mutated_records_end_in_one_error(saved):
    kind, path, checkpoint = saved
    chance, refused = random.Random(0), 0
    images = digits()[0][:2]
    ((key, record),) = checkpoint["compression_structures"].items()
    for _ in range(40):
        torch.save({**checkpoint, "compression_structures": {key: mutated_record(record, chance)}}, path)
        try:
            module = load_compressed(kind, path).eval()
        except RecordError:
            refused += 1
        else:
            assert {name: t.shape for name, t in module.state_dict().items()} == {
                name: t.shape for name, t in checkpoint["state_dict"].items()
            }
            module(images)
    assert 20 < refused <= 40


def test_a_shape_is_compared_before_it_is_allocated(saved):
    """36 GB in a record, in the tensor beside it, or in both."""
    kind, path, checkpoint = saved
    records = checkpoint["compression_structures"]
    if "channels" in records:
        records["channels"]["shapes"]["net.0.weight"] = [10**9, 1, 3, 3]
    elif "low_rank" in records:
        records["low_rank"]["split"] = {"net.9": [32, 10**9, 64]}
    else:
        records["quantization"]["grids"]["net.0.weight"]["fields"]["scale"] = torch.ones(1).expand(10**15, 1)
    torch.save(checkpoint, path)
    with pytest.raises(RecordError):
        load_compressed(kind, path)
    wide = {"net.0.weight": torch.ones(1).expand(10**9, 1, 3, 3), "net.9.first.weight": torch.ones(1).expand(10**9, 64)}
    checkpoint["state_dict"].update(wide, **{"net.9.second.weight": torch.ones(1).expand(32, 10**9)})
    torch.save(checkpoint, path)
    with pytest.raises(RecordError):
        load_compressed(kind, path)
