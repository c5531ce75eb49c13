"""Records in a checkpoint are found by the names of rooms; those of other packages are given."""

import pytest
import torch

from lightning_compress import load_compressed
from lightning_compress.carried import Structure, carry
from tests.support.runs import trainer
from tests.support.toys import Digits, build

MINE = Structure(
    "mine.os.system",
    record=lambda module: {"bits": module.bits},
    attach=lambda module, record: setattr(module, "bits", record["bits"]),
)


@pytest.fixture
def path(tmp_path):
    module = build()
    module.bits = 3
    carry(module, MINE)
    run = trainer()
    run.strategy.connect(module)
    run.save_checkpoint(tmp_path / "mine.ckpt")
    return tmp_path / "mine.ckpt"


def test_an_unknown_record_is_named(path):
    with pytest.raises(
        ValueError,
        match=r"got a record 'mine\.os\.system' beside those of \['adapters', .*\]: .* in structures",
    ):
        load_compressed(Digits, path)


def test_a_structure_of_another_package_is_given_and_carried_on(path):
    loaded = load_compressed(Digits, path, structures=[MINE])
    assert loaded.bits == 3
    checkpoint = {}
    loaded.on_save_checkpoint(checkpoint)
    assert checkpoint["compression_structures"] == {MINE.key: {"bits": 3}}


@pytest.mark.parametrize("key", ["loading", "report", "schedules"])
def test_a_room_without_records_carries_none(path, key):
    saved = torch.load(path, weights_only=True)
    saved["compression_structures"] = {key: {}}
    torch.save(saved, path)
    with pytest.raises(ValueError, match=f"got a record '{key}'"):
        load_compressed(Digits, path)
