"""CompressionBudget: what it chooses, what it refuses, and its life in a Trainer."""

import logging
import re

import lightning as L
import pytest
import torch
from torch import nn

from lightning_compress import (
    ChannelPruningCallback,
    CompressionBudget,
    DistillationCallback,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
    export,
)
from lightning_compress.archive import archived_bytes
from lightning_compress.schedules import Constant, Linear
from tests.support.runs import trainer
from tests.support.toys import Batches, Digits, build, fit, held_out, teacher

RAMP = Linear(0.1, 0.6)


def budget(size, **options):
    return CompressionBudget(bytes=size, **({"schedule": RAMP, "every_n_steps": 3} | options))


def file_size(module, folder):
    return export(module, folder / "m.lcz").stat().st_size


def zeros(module):
    weights = torch.cat([p.detach().flatten() for p in module.parameters() if p.ndim > 1])
    return float((weights == 0).float().mean())


@pytest.mark.parametrize("size", [1300, 2200, 4500])
def test_the_file_fits(size, tmp_path):
    module = build()
    fit(module, budget(size))
    assert 0.9 * size <= file_size(module, tmp_path) <= size


def test_a_smaller_budget_leaves_fewer_weights_and_values(tmp_path):
    found = []
    for size in (1100, 1500, 4000):
        module, callback = build(), budget(size)
        fit(module, callback)
        held = {name: len(parameter.unique()) for name, parameter in module.named_parameters() if parameter.ndim > 1}
        chosen = callback.report()["values"]
        assert all(held[name] <= chosen[name] for name in held)
        found.append((zeros(module), sum(held.values())))
    assert found[0][0] > found[1][0] >= found[2][0]
    assert found[0][1] < found[1][1] < found[2][1]


def test_what_it_reports_is_what_the_file_takes(tmp_path):
    module, callback = build(), budget(2500)
    fit(module, callback)
    report = callback.report()
    assert report["bytes"] == file_size(module, tmp_path)
    assert report["zeros"] == pytest.approx(zeros(module), abs=1e-3)
    assert set(report["values"]) == {"net.0.weight", "net.3.weight", "net.9.weight", "net.11.weight"}


def test_it_prints_the_choice_and_the_file(caplog):
    caplog.set_level(logging.INFO)
    fit(build(), budget(2500))
    assert "a file of at most 2,500 bytes, by zeros and shared values" in caplog.text
    assert re.search(r"net\.9\.weight +2,048 +[\d.]+% +\d+ +[\d,]+", caplog.text)
    assert re.search(r"the file takes 2,[34]\d\d of 2,500 bytes", caplog.text)


def test_layers_that_matter_more_get_more_values():
    """The loss depends on one of two equal layers a hundred times as much as on the other."""

    class Two(Digits):
        def __init__(self):
            super().__init__(torch.optim.SGD, lr=1e-4)
            self.net = nn.ModuleDict({"loud": nn.Linear(64, 64, bias=False), "quiet": nn.Linear(64, 64, bias=False)})

        def forward(self, images):
            rows = images.flatten(1)
            return (100 * self.net["loud"](rows) + self.net["quiet"](rows))[:, :10]

    module, callback = Two(), budget(5000)
    fit(module, callback)
    values = callback.report()["values"]
    assert values["net.loud.weight"] > values["net.quiet.weight"]


@pytest.mark.parametrize("size", [100, 550])
def test_a_budget_that_the_model_cannot_meet_is_refused_before_training(size):
    module = build()
    before = module.net[9].weight.detach().clone()
    with pytest.raises(
        ValueError, match=rf"need bytes >= \d\d\d for this model, got bytes={size}: \d\d\d bytes are what is not"
    ):
        fit(module, budget(size))
    assert torch.equal(before, module.net[9].weight)


def test_a_budget_that_the_model_meets_without_compression_is_refused():
    with pytest.raises(ValueError, match=r"need bytes below the 14,\d\d\d that this model takes .* got bytes=20,000"):
        fit(build(), budget(20_000))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"bytes": 0}, ValueError, "need bytes >= 1"),
        ({"bytes": 2.5e3}, TypeError, "bytes"),
        ({"bytes": "20k"}, TypeError, "bytes"),
        ({"bytes": 2500, "schedule": Constant(0.5)}, ValueError, "ends at 1"),
        ({"bytes": 2500, "every_n_steps": 0}, ValueError, "every_n_steps"),
        ({"bytes": 2500, "include": "net"}, TypeError, "include"),
    ],
)
def test_wrong_arguments(options, error, match):
    with pytest.raises(error, match=match):
        CompressionBudget(**options)


def test_a_second_method_that_shares_values_is_refused():
    with pytest.raises(ValueError, match="different places in the order of projection"):
        fit(build(), budget(2500), WeightSharingCallback(8))


def test_a_run_that_is_too_short_says_so(tmp_path):
    with pytest.warns(UserWarning, match="CompressionBudget: the run ended at .* before the end of its schedule"):
        fit(build(), budget(2500), Stop(10))


class Stop(L.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step >= self.step


def test_at_once_it_waits_for_the_first_gradient(tmp_path):
    module = build()
    fit(module, budget(2500, schedule=Constant()))
    assert 0.9 * 2500 <= file_size(module, tmp_path) <= 2500


def test_a_file_that_grows_after_the_schedule_is_made_to_fit_again(tmp_path):
    """A buffer that was zero, and took no bytes, is filled once the compression is complete."""

    class Extra(Digits):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.register_buffer("extra", torch.zeros(60))

    class Fill(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == 26:
                pl_module.extra.copy_(torch.randn(60, generator=torch.Generator().manual_seed(0)))

    kept, filled = build(kind=Extra), build(kind=Extra)
    fit(kept, budget(2600))
    fit(filled, budget(2600), Fill())
    assert file_size(filled, tmp_path) <= 2600
    assert zeros(filled) > zeros(kept) + 0.01


class Sizes(L.Callback):
    """Bytes of the file at each validation."""

    def __init__(self):
        self.sizes = []

    def on_validation_end(self, trainer, pl_module):
        self.sizes.append(archived_bytes(pl_module.state_dict()))


def test_every_validation_after_the_schedule_sees_a_model_that_fits():
    sizes = Sizes()
    L.seed_everything(0, verbose=False)
    run = trainer(budget(2500), sizes, val_check_interval=3)
    run.fit(build(), Batches(), held_out())
    assert len(sizes.sizes) == 12
    assert all(size <= 2500 for size in sizes.sizes[7:])
    assert sizes.sizes[0] > 4000


def test_a_method_that_changes_the_values_afterwards_is_refused():
    with pytest.raises(ValueError, match="got QATCallback, which changes them, on net.9.weight: name them in exclude"):
        fit(build(), budget(2500), QATCallback(8, include=["net.9"]))


def test_beside_a_teacher_a_fixed_sparsity_and_a_layer_of_integers(tmp_path):
    module = build()
    callbacks = [
        budget(2500, exclude=["net.11"]),
        QATCallback(8, every_n_steps=3, include=["net.11"]),
        PruningCallback(0.3, schedule=RAMP, every_n_steps=3, include=["net.9"]),
        DistillationCallback(teacher(), alpha=0.5),
    ]
    fit(module, *callbacks)
    assert file_size(module, tmp_path) <= 2500
    assert float((module.net[9].weight == 0).float().mean()) >= 0.3 - 1e-3


def test_patterns_leave_other_weights_alone(tmp_path):
    module, callback = build(), budget(8000, include=["net.9"])
    fit(module, callback)
    assert set(callback.report()["values"]) == {"net.9.weight"}
    assert len(module.net[3].weight.unique()) > 1000
    assert file_size(module, tmp_path) <= 8000


@pytest.mark.parametrize("until", [0.4, 0.9])
def test_channels_are_removed_while_it_chooses(until, tmp_path):
    """They go before the values are chosen, or after; the file of the small model is measured."""
    module, callback = build(), budget(2000)
    channels = ChannelPruningCallback(0.5, round_to=4, schedule=Linear(0.1, until), every_n_steps=3)
    fit(module, channels, callback)
    assert module.net[3].weight.numel() < 16 * 8 * 9
    assert file_size(module, tmp_path) <= 2000
    assert callback.report()["bytes"] == file_size(module, tmp_path)
