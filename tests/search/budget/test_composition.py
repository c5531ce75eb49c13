"""A budget with wishes for the speed: channels are gone, and the file of the smaller model fits."""

import logging
import re

import pytest
import torch
from torch import nn

from lightning_compress import (
    ChannelPruningCallback,
    CompressionBudget,
    export,
    load_compressed,
    plan,
)
from lightning_compress.cli.lightning import CompressionCLI
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.macs import count_macs
from lightning_compress.report.methods import methods_of
from lightning_compress.schedules import Constant, Linear
from tests.support.runs import Randomness, resumes, same, trainer, uninterrupted
from tests.support.toys import Batches, Digits, build, fit, held_out

RAMP = Linear(0.1, 0.7)
IMAGES = torch.zeros(2, 1, 8, 8)


def budget(**options):
    return CompressionBudget(**({"round_to": 4, "schedule": RAMP, "every_n_steps": 3} | options))


def macs_left(module):
    """Of the dense model, counted by hooks in a forward pass."""
    return count_macs(module, IMAGES).total / count_macs(build(), IMAGES).total


def file_size(module, folder):
    return export(module, folder / "m.lcz").stat().st_size


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A fitted module, its callback, its Trainer, and its checkpoint."""
    module, callback, path = build(), budget(bytes=2500, macs=0.5), tmp_path_factory.mktemp("both") / "m.ckpt"
    run = fit(module, callback)
    run.save_checkpoint(path)
    return module, callback, run, path


@pytest.mark.parametrize("macs", [0.3, 0.6])
def test_macs_alone(macs, caplog):
    caplog.set_level(logging.INFO)
    module, callback = build(), budget(macs=macs)
    fit(module, callback)
    assert 0.6 * macs < macs_left(module) <= macs
    assert all(len(weight.unique()) > weight.numel() / 2 for weight in module.parameters() if weight.ndim > 1)
    assert callback.report()["macs"] == pytest.approx(macs_left(module), abs=1e-3)
    assert f"of the MACs left, asked for {macs}" in caplog.text
    assert "bytes" not in callback.report()


def test_bytes_and_macs(both, tmp_path):
    module, callback, _, _ = both
    assert macs_left(module) <= 0.5
    assert 0.9 * 2500 <= file_size(module, tmp_path) <= 2500
    report = callback.report()
    assert report["asked"] == {"bytes": 2500, "macs": 0.5}
    assert report["macs"] == pytest.approx(macs_left(module), abs=1e-3)
    assert report["bytes"] == file_size(module, tmp_path)


def test_a_checkpoint_carries_the_channels_and_values(both):
    module, _, _, path = both
    assert same(load_compressed(Digits, path), module)


def test_the_channels_are_in_the_list_of_the_trainer_once():
    run = trainer(budget(macs=0.5))
    for epochs in (1, 2):
        run.fit_loop.max_epochs = epochs
        run.fit(build(), Batches(), held_out())
        kinds = [type(one) for one in run.callbacks]
        assert kinds.index(ChannelPruningCallback) == kinds.index(CompressionBudget) + 1
        assert kinds.count(ChannelPruningCallback) == 1


@resumes
@pytest.mark.parametrize("wishes", [{"macs": 0.5}, {"bytes": 2500, "macs": 0.5}], ids=str)
def test_a_run_that_is_resumed_before_the_removal_and_after_it(wishes, tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = build()
        fit(module, budget(**wishes), Randomness(), *callbacks, ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, (8, 20, 32))


@resumes
def test_a_resumed_run_with_another_wish_is_refused(both):
    with pytest.raises(ValueError, match="to resume CompressionBudget, got macs=0.4 where it has macs=0.5"):
        fit(build(), budget(bytes=2500, macs=0.4), ckpt_path=both[3])


@pytest.fixture
def stopwatch(monkeypatch):
    """A runtime whose runs take as long as the model has parameters, times a factor that a test may change."""
    state = {"slower": 1.0, "batches": set()}

    def runtime(module, example):
        state["batches"].add(len(example))
        return lambda: sum(parameter.numel() for parameter in module.parameters())

    monkeypatch.setattr(
        "lightning_compress.channels.budget.latencies.time_ratio",
        lambda run, reference: state["slower"] * run() / reference(),
    )
    return runtime, state


def parameters_left(module):
    counts = [sum(parameter.numel() for parameter in one.parameters()) for one in (module, build())]
    return counts[0] / counts[1]


def test_latency_is_measured_again_at_the_end(stopwatch, caplog):
    caplog.set_level(logging.INFO)
    runtime, state = stopwatch
    module, callback = build(), budget(latency=0.6, runtime=runtime, batch_size=5)
    module.example_input_array = IMAGES
    fit(module, callback)
    assert parameters_left(module) <= 0.6
    assert callback.report()["latency"] == pytest.approx(parameters_left(module))
    assert state["batches"] == {5}
    assert "CompressionBudget: " in caplog.text
    assert caplog.text.count("of the latency left, asked for 0.6") == 1


def test_a_latency_that_is_missed_is_named(stopwatch):
    runtime, state = stopwatch

    class Slow(Randomness):
        """Another machine, in the middle of the run."""

        def on_train_epoch_end(self, *_):
            state["slower"] = 2.0

    module = build()
    module.example_input_array = IMAGES
    with pytest.warns(
        UserWarning, match=r"missed latency=0\.6 by .* of the latency is left, measured in runtime with b"
    ):
        fit(module, budget(latency=0.6, runtime=runtime), Slow())


def test_a_size_that_the_removal_alone_reaches_is_no_fault(tmp_path):
    module = build()
    fit(module, budget(bytes=13_000, macs=0.3))
    assert macs_left(module) <= 0.3
    assert file_size(module, tmp_path) <= 13_000
    assert not any((weight == 0).any() for weight in module.parameters() if weight.ndim > 1)


@pytest.mark.parametrize(
    ("wishes", "match"),
    [
        ({"macs": 0.01}, r"need macs >= 0\.\d+ for this model with round_to=4, got macs=0\.01: raise macs"),
        ({"macs": 0.01, "bytes": 2500}, r"need macs >= 0\.\d+ for this model with round_to=4, got macs=0\.01: raise"),
        ({"macs": 0.5, "bytes": 300}, r"need bytes >= \d+ for this model, got bytes=300"),
    ],
    ids=str,
)
def test_wishes_that_the_model_cannot_meet_are_refused_before_training(wishes, match):
    module = build()
    with pytest.raises(ValueError, match=match):
        fit(module, budget(**wishes))
    assert same(module, build())


def test_the_least_size_that_is_named_can_be_met(tmp_path):
    """It is that of the model without its channels."""
    with pytest.raises(ValueError, match="need bytes >=") as refusal:
        fit(build(), budget(bytes=100, macs=0.3))
    least = int(re.search(r"bytes >= (\d+)", str(refusal.value)).group(1))
    module = build()
    fit(module, budget(bytes=least + 100, macs=0.3))
    assert file_size(module, tmp_path) <= least + 100


def test_a_second_callback_that_removes_channels_is_refused():
    with pytest.raises(
        ValueError, match=r"got ChannelPruningCallback\(macs=0.4\) beside CompressionBudget with macs= or"
    ):
        fit(build(), budget(macs=0.5), ChannelPruningCallback(0.4))


def test_at_once():
    module = build()
    fit(module, budget(bytes=2500, macs=0.5, schedule=Constant()))
    assert macs_left(module) <= 0.5


def test_max_drop_of_a_model_whose_channels_are_gone(tmp_path):
    module = build()
    fit(module, budget(macs=0.5))
    before = file_size(module, tmp_path)
    second = CompressionBudget(max_drop=0.3, patience=1)
    fit(module, second, num_sanity_val_steps=2)
    assert macs_left(module) <= 0.5
    assert file_size(module, tmp_path) < before / 2


def test_a_plan_shows_both(both):
    planned = plan(build(), [budget(bytes=2500, macs=0.5)], IMAGES)
    assert [method.text.split(":")[0] for method in planned.methods] == ["CompressionBudget", "ChannelPruningCallback"]
    assert planned.after.macs.total <= planned.before.macs.total / 2
    assert planned.after.archive_bytes <= 2500
    alone = plan(build(), [budget(macs=0.5)], IMAGES)
    assert alone.after.macs.total <= alone.before.macs.total / 2
    with pytest.raises(ValueError, match="need example_input to find the channels"):
        plan(build(), [budget(macs=0.5)])


def test_a_report_names_both(both):
    methods = methods_of(both[2].callbacks, both[0])
    assert methods["CompressionBudget"]["asked"] == {"bytes": 2500, "macs": 0.5}
    assert methods["ChannelPruningCallback"]["macs"] <= 0.5


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_from_yaml(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["lightning-compress"])
    callbacks = """
    - class_path: lightning_compress.CompressionBudget
      init_args:
        bytes: 2500
        latency: 0.5
        batch_size: 4
        runtime: {class_path: lightning_compress.deploy.runtimes.OnnxRuntime}
    """
    config = tmp_path / "config.yaml"
    config.write_text(f"trainer:\n  logger: false\n  enable_checkpointing: false\n  callbacks:{callbacks}")
    cli = CompressionCLI(Digits, args=["--config", str(config)], run=False, save_config_callback=None)
    (found,) = [one for one in cli.trainer.callbacks if isinstance(one, CompressionBudget)]
    assert (found.bytes, found.latency, found.batch_size, found.runtime) == (2500, 0.5, 4, OnnxRuntime())


def test_a_layer_that_is_left_out_keeps_its_channels_and_floats():
    module = build()
    fit(module, budget(bytes=9500, macs=0.7, exclude=["net.9"]))
    assert module.net[9].weight.shape[0] == 32
    assert isinstance(module.net[9], nn.Linear)
    assert len(module.net[9].weight.unique()) > 500
