"""Checkpoints before, at and after the removal of channels."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

from lightning_compress.carried import attach_structure
from lightning_compress.channels import ChannelPruningCallback
from lightning_compress.channels.removal.shapes import CHANNELS, conform_, record
from lightning_compress.loading import load_compressed
from lightning_compress.schedules import Linear
from lightning_compress.schemas import RecordError
from tests.support.nets import Transformer
from tests.support.runs import Randomness, Save, resumes, same, trainer, uninterrupted
from tests.support.toys import Digits, build, fit, held_out


def callback(**settings):
    settings = {"round_to": 4, "schedule": Linear(0.1, 0.5), "every_n_steps": 3, **settings}
    return ChannelPruningCallback(0.5, **settings)


def numbers(paths):
    return sorted(paths, key=lambda path: int(path.stem.partition("=")[2]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run of 36 steps, narrowed after step 18, and its checkpoints around it."""
    folder = tmp_path_factory.mktemp("run")
    module = build()
    fit(module, callback(), Randomness(), Save(folder, range(1, 37)))
    return module, folder


def width(path):
    return len(torch.load(path, weights_only=True)["state_dict"]["net.3.weight"])


@resumes
def test_resumed_is_bit_identical_before_at_and_after_removal(finished):
    module, folder = finished
    paths = numbers(folder.glob("*.ckpt"))
    widths = [width(path) for path in paths]
    first = next(i for i, w in enumerate(widths) if w < 16)
    assert set(widths[:first]) == {16}
    for path in (paths[4], paths[first - 1], paths[first], paths[first + 1], paths[first + 6]):
        resumed = build()
        fit(resumed, callback(), Randomness(), ckpt_path=path)
        assert same(resumed, module), path.name


@resumes
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_resume_with_other_optimizers_and_an_average(tmp_path, optimizer):
    options = {"lr": 0.01, "momentum": 0.9} if optimizer is torch.optim.SGD else {"lr": 0.01, "fused": True}

    def run(*callbacks, ckpt_path=None):
        module = build(optimizer, **options)
        fit(module, EMAWeightAveraging(decay=0.9), callback(), Randomness(), *callbacks, ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, (15, 20))


def metrics(module, path=None):
    return trainer(callback()).validate(module, held_out(), ckpt_path=path, verbose=False)[0]


@resumes
def test_evaluation_makes_a_wide_model_narrow_and_a_narrow_one_wide(finished):
    module, folder = finished
    paths = numbers(folder.glob("*.ckpt"))
    fresh = Digits()
    expected = metrics(module)
    assert metrics(fresh, paths[-1]) == expected
    assert fresh.net[3].out_channels == len(module.net[3].weight) < 16
    dense = metrics(fresh, paths[3])
    assert fresh.net[3].out_channels == len(fresh.net[3].weight) == 16
    assert metrics(fresh, paths[-1]) == expected != dense


def test_load_compressed_needs_no_trainer(finished):
    module, folder = finished
    loaded = load_compressed(Digits, numbers(folder.glob("*.ckpt"))[-1])
    assert type(loaded) is Digits
    assert same(loaded, module)
    assert torch.equal(loaded.eval()(torch.ones(1, 1, 8, 8)), module.eval()(torch.ones(1, 1, 8, 8)))


def test_weights_only_checkpoints_and_those_after_fit_carry_the_shapes(tmp_path):
    module = build()
    run = fit(module, callback())
    run.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    assert same(load_compressed(Digits, tmp_path / "weights.ckpt"), module)
    load_compressed(Digits, tmp_path / "weights.ckpt")
    again = trainer()
    loaded = load_compressed(Digits, tmp_path / "weights.ckpt")
    again.strategy.connect(loaded)
    again.save_checkpoint(tmp_path / "again.ckpt", weights_only=True)
    assert same(load_compressed(Digits, tmp_path / "again.ckpt"), module)


def test_a_plain_load_names_the_mismatch(finished):
    with pytest.raises(RuntimeError, match="size mismatch"):
        Digits.load_from_checkpoint(numbers(finished[1].glob("*.ckpt"))[-1])


def test_numbers_of_heads_travel():
    small, fresh = Transformer(), Transformer()
    small.attention.num_heads = 2
    conform_(fresh, record(small))
    assert fresh.attention.num_heads == 2
    conform_(fresh, record(Transformer()))
    assert fresh.attention.num_heads == 4


def test_shapes_conform_twice_and_there_and_back():
    wide, narrow = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3)), torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3))
    for target in (narrow, narrow, wide):
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3))
        for _ in range(2):
            conform_(net, record(target))
        net.load_state_dict(target.state_dict())
        assert net[0].out_channels == target[0].out_channels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes": {"net.0.weight": [4, 1, 3]}}, r"channels.shapes\['net.0.weight'\] as .*, got \[4, 1, 3\]"),
        ({"shapes": {"net.0.weight": [4, 1, 3, -3]}}, r"channels.shapes\['net.0.weight'\]\[3\] as .*, got -3"),
        ({"numbers": {"net.0": {"forward": 3}}}, r"channels.numbers\['net.0'\] as numbers of heads .*forward.*"),
        ({"numbers": {"": {"__class__": 3}}}, r"channels.numbers\[''\] as numbers of heads .*__class__.*"),
    ],
)
def test_a_foreign_record_is_refused(change, message):
    module = Digits()
    checkpoint = {"compression_structures": {CHANNELS.key: record(module) | change}}
    with pytest.raises(RecordError, match=f"need {message}: the file is damaged, or not one of this model"):
        attach_structure(module, CHANNELS, checkpoint)


def test_the_structure_is_carried_once():
    module = build()
    run = fit(module, callback(), max_steps=2)
    fit(module, callback(), max_steps=2)
    checkpoint = run._checkpoint_connector.dump_checkpoint()
    assert list(checkpoint["compression_structures"]) == [CHANNELS.key]
    assert isinstance(module, L.LightningModule)
