"""Which layers, the life in a Trainer, and what goes along."""

import json

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from torch import nn
from torch.nn import functional as F

from lightning_compress import (
    ChannelPruningCallback,
    CompressionReport,
    DistillationCallback,
    LowRankCallback,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
    export,
    load_archive,
    split_low_rank,
)
from lightning_compress.low_rank import Factorized
from lightning_compress.schedules import Constant, Linear
from tests.support.gpt2 import Conv1D
from tests.support.runs import trainer
from tests.support.toys import Digits, Manual, build, digits, fit, held_out

DENSE = 8 * 9 + 16 * 72 + 32 * 64 + 10 * 32
NAMED = ("net.9", "net.11")


def callback(parameters=0.5, **settings):
    amount = {} if "energy" in settings else {"parameters": parameters}
    return LowRankCallback(**{"schedule": Linear(0.1, 0.6), "every_n_steps": 3, **amount, **settings})


def weights(module):
    return sum(p.numel() for p in module.parameters() if p.ndim > 1)


def ranks(module, precision=1e-5):
    """By numpy's singular values."""
    matrices = {n: p.detach().flatten(1).double() for n, p in module.named_parameters() if p.ndim > 1}
    values = {name: torch.linalg.svdvals(matrix) for name, matrix in matrices.items()}
    return {name: int((s > precision * s[0]).sum()) for name, s in values.items()}


class TestArguments:
    def test_one_amount(self):
        with pytest.raises(ValueError, match="need one of parameters and energy, got parameters=0.5 and energy=0.9"):
            LowRankCallback(0.5, energy=0.9)

    @pytest.mark.parametrize("name", ["parameters", "energy"])
    def test_fractions(self, name):
        with pytest.raises(ValueError, match=f"need 0 < {name} < 1, got {name}=1.0"):
            LowRankCallback(**{name: 1.0})
        with pytest.raises(TypeError, match=f"need {name} as a number, got '0.5'"):
            LowRankCallback(**{name: "0.5"})

    def test_repr(self):
        assert repr(LowRankCallback()) == "LowRankCallback(parameters=0.5)"
        assert repr(LowRankCallback(energy=0.9, split=False)) == "LowRankCallback(energy=0.9, split=False)"


class TestTargets:
    class Mixed(Digits):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1),
                nn.Conv2d(8, 8, 3, padding=1, groups=4),
                nn.BatchNorm2d(8),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(32, 32),
                nn.Linear(32, 32),
                Conv1D(16, 32),
                nn.Linear(16, 10),
                nn.Linear(10, 10),
            )
            self.net[6].weight = self.net[5].weight

    def test_layers_with_a_weight_of_their_own_that_is_a_matrix(self):
        method = callback(include=("*",))
        fit(self.Mixed(), method, max_steps=1)
        selection = method.select(self.Mixed())
        assert [target.name for target in selection] == ["net.0.weight", *(f"net.{k}.weight" for k in (7, 8, 9))]
        assert selection.skipped["net.1.weight"] == "a convolution in groups"
        assert selection.skipped["net.5.weight"] == "tied to another layer"
        assert selection.skipped["net.2.weight"] == "normalization"

    def test_a_layer_that_no_rank_makes_smaller(self):
        class Thin(Digits):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Linear(1, 10), nn.Linear(10, 10))

        selection = callback().select(Thin())
        assert [target.name for target in selection] == ["net.3.weight"]
        reason = "two layers have no fewer parameters at any rank"
        assert selection.skipped["net.1.weight"] == selection.skipped["net.2.weight"] == reason

    def test_nothing_to_split(self):
        class Grouped(Digits):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten(), nn.Embedding(3, 3))

        with pytest.raises(
            ValueError, match=r"^need a layer that can be split in two, got none: .*: net\.2\.weight.*$"
        ):
            callback(include=("net.2",)).select(Grouped())

    def test_a_budget_out_of_reach(self):
        least = (8 + 9) + (16 + 72) + (32 + 64) + (10 + 32)
        with pytest.raises(ValueError, match=f"need a budget of at least {least} parameters, .* got {DENSE // 100}"):
            fit(build(), callback(0.01, schedule=Constant()))


def test_a_budget_of_parameters_splits_layers():
    module, method = build(), callback(0.5)
    fit(module, method)
    split = {name: layer.rank for name, layer in module.named_modules() if isinstance(layer, Factorized)}
    assert split
    assert 0.4 * DENSE < weights(module) <= 0.5 * DENSE
    assert method.metrics()["parameters"] == pytest.approx(weights(module) / DENSE)
    assert method.report()["ranks"] == {f"{name}.weight": rank for name, rank in split.items()}


def test_an_energy_is_kept_by_every_layer():
    """The weights are those before the split: it needs no more than the last projection keeps."""
    seen = {}

    class Watch(LowRankCallback):
        def update(self, weights):
            latents = {name: weight.clone() for name, weight in weights.items()}
            super().update(weights)
            if self.strength == 1.0:
                seen.update({n: torch.linalg.svdvals(w.flatten(1)).square() for n, w in latents.items()})

    method = Watch(energy=0.7, schedule=Linear(0.1, 0.6), every_n_steps=3)
    fit(build(), method)
    assert len(seen) == 4
    for name, rank in method.report()["ranks"].items():
        kept = (seen[name].cumsum(0) / seen[name].sum()).tolist()
        assert kept[rank - 1] >= 0.7 - 1e-6
        assert rank == 1 or kept[rank - 2] < 0.7


def test_the_rank_falls_along_the_schedule():
    seen = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            found = ranks(pl_module)
            seen.append((method.strength, dict(method.ranks)))
            assert all(found[name] <= rank for name, rank in method.ranks.items())

    method = callback(0.4, split=False)
    fit(build(), method, Watch())
    totals = [sum(found.get(name, full) for name, full in FULL.items()) for _, found in seen]
    assert totals[0] == sum(FULL.values())
    assert totals[-1] < totals[len(totals) // 3] < totals[0]
    arrived = [found for strength, found in seen if strength == 1.0]
    assert arrived.count(arrived[0]) == len(arrived)


FULL = {"net.0.weight": 8, "net.3.weight": 16, "net.9.weight": 32, "net.11.weight": 10}


def test_weights_that_are_not_split_have_their_rank_and_are_split_afterwards():
    module, method = build(), callback(split=False)
    run = fit(module, method)
    found = ranks(module)
    assert method.ranks
    assert all(found[name] == rank for name, rank in method.ranks.items())
    (before,) = run.validate(module, held_out(), verbose=False)
    assert split_low_rank(module) == len(method.ranks)
    assert weights(module) <= 0.5 * DENSE
    (after,) = trainer().validate(module, held_out(), verbose=False)
    assert after["val_loss"] == pytest.approx(before["val_loss"], rel=1e-5)


def test_the_split_changes_nothing_at_the_moment_it_is_made():
    images, differences = digits()[0][:32], []

    class Watch(LowRankCallback):
        def _split_layers(self, run, trainer, module):
            module.eval()
            before = module(images)
            super()._split_layers(run, trainer, module)
            module.eval()
            differences.append(((module(images) - before).abs().max() / before.abs().max()).item())
            module.train()

    fit(build(), Watch(0.5, schedule=Linear(0.1, 0.6)))
    assert len(differences) == 1
    assert differences[0] < 1e-5


def test_verification_sees_a_weight_off_its_rank():
    class Broken(LowRankCallback):
        def project_(self, weights):
            super().project_(weights)
            for weight in weights.values():
                weight[0].add_(0.1)

    method = Broken(0.5, split=False, schedule=Constant())
    with pytest.raises(RuntimeError, match=r"need 'net\.\d+\.weight' of rank \d+, got singular values beyond it with"):
        fit(build(), method, max_steps=2)


@pytest.mark.parametrize("other", [PruningCallback, WeightSharingCallback, QATCallback])
def test_another_method_on_the_same_weight_is_refused(other):
    with pytest.raises(
        ValueError, match=rf"need LowRankCallback alone on a weight, got {other.__name__} too on net\.0"
    ):
        fit(build(), callback(), other())


@pytest.mark.parametrize(
    "other",
    [
        lambda: PruningCallback(0.8, schedule=Linear(0.1, 0.6), every_n_steps=3, exclude=NAMED),
        lambda: WeightSharingCallback(8, schedule=Linear(0.1, 0.6), every_n_steps=3, exclude=NAMED),
        lambda: QATCallback(4, activation_bits=8, schedule=Linear(0.1, 0.6), every_n_steps=3, exclude=NAMED),
        lambda: DistillationCallback(build()),
    ],
    ids=["pruning", "sharing", "QAT", "distillation"],
)
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_other_callbacks_on_other_layers(other, tmp_path):
    class Save(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    class Still(Digits):
        """Without dropout, whose random numbers a checkpoint does not carry."""

        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.net[8] = nn.Identity()

    module = build(kind=Still)
    fit(module, other(), callback(include=NAMED), Save())
    assert isinstance(module.net[9], Factorized)
    for epoch in (0, 1):
        resumed = build(kind=Still)
        fit(resumed, other(), callback(include=NAMED), ckpt_path=tmp_path / f"{epoch}.ckpt")
        assert resumed.state_dict().keys() == module.state_dict().keys()
        assert all(torch.equal(one, module.state_dict()[name]) for name, one in resumed.state_dict().items())


def test_channels_of_layers_that_feed_no_target():
    """A convolution in front loses channels, and the linear layers behind it become thin."""
    channels = ChannelPruningCallback(macs=0.8, round_to=1, schedule=Linear(0.1, 0.5), include=("net.0",))
    module = build()
    fit(module, channels, callback(include=("net.11",), parameters=0.9))
    assert module.net[0].out_channels < 8
    assert isinstance(module.net[11], Factorized)


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
@pytest.mark.parametrize(
    "averaging",
    [lambda: EMAWeightAveraging(decay=0.9), lambda: StochasticWeightAveraging(1e-3, 0.3, annealing_epochs=1)],
    ids=["EMA", "SWA"],
)
def test_an_average_follows(averaging):
    module = build()
    run = fit(module, averaging(), callback(), max_epochs=6)
    assert weights(module) <= 0.5 * DENSE
    (metrics,) = run.validate(module, held_out(), verbose=False)
    dense = fit(build(), averaging(), max_epochs=6).callback_metrics
    assert metrics["val_acc"] > 0.5 * dense["val_acc"] > 0.2


def test_manual_optimization_with_two_optimizers():
    module = build(kind=Manual)
    fit(module, callback())
    first, second = (one.optimizer for one in module.optimizers())
    named = {id(p): n for n, p in module.named_parameters()}
    stepped = [named[id(p)] for one in (first, second) for group in one.param_groups for p in group["params"]]
    assert sorted(stepped) == sorted(named.values())


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
@pytest.mark.parametrize("split", [True, False])
def test_precision(precision, split):
    class Cast(Digits):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0].to(self.dtype)).float(), batch[1])

        def validation_step(self, batch, batch_idx):
            return None

    module, method = build(kind=Cast), callback(split=split)
    fit(module, method, precision=precision)
    if not split:
        assert split_low_rank(module) == len(method.ranks)
    assert weights(module) <= 0.5 * DENSE


def test_the_layer_that_is_split_still_learns_by_what_the_weight_had_learnt():
    for split in (True, False):
        run = fit(build(), callback(0.6, split=split), max_epochs=10)
        assert run.callback_metrics["val_acc"] > 0.6


def test_fit_again_leaves_the_split_model_as_it_is():
    module, method = build(), callback()
    fit(module, method)
    shapes = [p.shape for p in module.parameters()]
    for again in (method, callback()):
        fit(module, again)
        assert [p.shape for p in module.parameters()] == shapes
        assert again.metrics()["parameters"] == pytest.approx(weights(module) / DENSE)
    fit(module, callback(0.45))
    assert weights(module) <= 0.45 * DENSE


def test_a_module_that_is_compiled_as_a_whole():
    class Quiet(Digits):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            return None

    plain, whole = build(kind=Quiet), build(kind=Quiet)
    for module in (plain, torch.compile(whole, backend="eager")):
        fit(module, callback())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(whole.state_dict()[name], value)


@pytest.fixture
def one_thread(monkeypatch):
    """A forked process waits for ever for the threads that its parent's OpenMP pool had."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore:.*layers stay whole")  # in the forked process
def test_strategies_that_return_no_smaller_model_leave_layers_whole(one_thread):
    module = build()
    fit(module, callback(), strategy="ddp_fork")
    assert weights(module) == DENSE
    assert split_low_rank(module) > 0
    assert weights(module) <= 0.5 * DENSE


@pytest.fixture(scope="module")
def finished():
    module = build()
    fit(module, callback())
    return module.eval()


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_exported_graphs_compute_the_same(finished, suffix, tmp_path):
    """``export`` runs what it has written, and compares."""
    assert export(finished, tmp_path / f"split{suffix}", torch.zeros(2, 1, 8, 8)).is_file()


def test_an_archive_holds_the_factors(finished, tmp_path):
    path = export(finished, tmp_path / "model.lcz")
    with pytest.warns(UserWarning, match="the state dict in model.lcz alone is not the model"):
        state = load_archive(path)
    assert state.keys() == finished.state_dict().keys()
    assert any(name.endswith(".first.weight") for name in state)


def test_the_report_shows_what_is_smaller(tmp_path):
    class Wide(Digits):
        example_input_array = torch.zeros(1, 1, 8, 8)

        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                nn.Flatten(), nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.Linear(512, 10)
            )

    report, method = CompressionReport(dirpath=tmp_path), callback(0.1)
    fit(Wide(), report, method)
    text = (tmp_path / "report.md").read_text()
    numbers = json.loads((tmp_path / "report.json").read_text())
    before, after = numbers["before"], numbers["after"]
    kept = method.metrics()["parameters"]
    assert after["macs"]["total"] / before["macs"]["total"] == pytest.approx(kept, abs=1e-3)
    assert after["state_bytes"] < 0.15 * before["state_bytes"]
    assert after["archive_bytes"] < 0.2 * before["archive_bytes"]
    assert "LowRankCallback" in text
