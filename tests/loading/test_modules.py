"""Records in a checkpoint are found by the names of rooms; those of other packages are given."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lightning_compress import PruningCallback, RecordError, export, load_compressed
from lightning_compress.carried import Structure, carry
from tests.support.runs import trainer
from tests.support.toys import Digits, build, fit

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


class Narrow(Digits):
    """Takes one argument, and keeps it."""

    def __init__(self, rate=0.1):
        super().__init__()
        self.save_hyperparameters()


@pytest.mark.parametrize("suffix", ["ckpt", "lcz"])
def test_an_argument_that_the_class_does_not_take_is_refused(suffix, tmp_path):
    module, path = Narrow(), tmp_path / f"m.{suffix}"
    run = fit(module, max_epochs=1)
    run.save_checkpoint(path) if suffix == "ckpt" else export(module, path)
    assert load_compressed(Narrow, path, rate=0.5).hparams["rate"] == 0.5
    with pytest.raises(TypeError, match="that Narrow takes, out of rate, got 'ratte'; did you mean 'rate'"):
        load_compressed(Narrow, path, ratte=0.5)


class Wrapped(Digits):
    """PEFT's wrapper gives all layers other names."""

    def __init__(self, lora=False, **options):
        super().__init__(**options)
        if lora:
            self.net = get_peft_model(self.net, LoraConfig(target_modules=["9"]))


@pytest.mark.parametrize("suffix", ["ckpt", "lcz"])
def test_a_class_that_is_built_without_its_adapters_is_told(suffix, tmp_path):
    module, path = Wrapped(lora=True), tmp_path / f"m.{suffix}"
    run = fit(module, PruningCallback(0.5, include=["*base_layer.weight"]), max_epochs=1)
    run.save_checkpoint(path) if suffix == "ckpt" else export(module, path)
    with pytest.raises(RecordError, match=r"need Wrapped built with the adapters .* lacks net\.base_model.*: pass"):
        load_compressed(Wrapped, path)
    assert load_compressed(Wrapped, path, lora=True).net.base_model is not None


@pytest.mark.parametrize("key", ["loading", "report", "schedules"])
def test_a_room_without_records_carries_none(path, key):
    saved = torch.load(path, weights_only=True)
    saved["compression_structures"] = {key: {}}
    torch.save(saved, path)
    with pytest.raises(ValueError, match=f"got a record '{key}'"):
        load_compressed(Digits, path)
