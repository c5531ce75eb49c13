from dataclasses import dataclass

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, StochasticWeightAveraging
from lightning.pytorch.tuner import Tuner
from torch import nn
from torch.nn import functional as F

from lightning_compress.channels import ChannelPruningCallback, criteria, remove_zero_channels
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.evidence import reads
from lightning_compress.pruning import PruningCallback
from lightning_compress.pruning import criteria as pruning_criteria
from lightning_compress.schedules import Constant, Linear
from tests.support.distributed import run_distributed
from tests.support.methods import Halved
from tests.support.nets import Module, Residual, data, doubles, outcome
from tests.support.runs import trainer


def callback(**settings):
    return ChannelPruningCallback(**{"round_to": 2, "every_n_steps": 2, **settings})


def test_the_report_after_removal():
    pruning = callback(macs=0.5)
    trainer(pruning).fit(Module(), data())
    told = pruning.report()
    assert told["strength"] == 1.0
    assert 0 < told["macs"] <= 0.5
    assert "weights" not in told  # none are left to mask, which is not what was compressed


class Product(nn.Module):
    """A layer that is none of torch's, and reads its weight in another way than those."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)

    def forward(self, x):
        return torch.einsum("bi,oi->bo", x, self.weight)


def test_a_model_without_channels_that_can_go_is_refused_by_the_names_of_its_layers():
    module = Module(net=nn.Sequential(nn.Flatten(), Product(64, 8), nn.ReLU(), Product(8, 3)))
    with pytest.raises(
        ValueError, match=r"(?s)need channels that can go, got macs.*it is a Product: no .* weight: net\.1, net\.3"
    ):
        trainer(callback(macs=0.5, include=("net.*",))).fit(module, data())
    with pytest.raises(ValueError, match="need a model that fewer channels make faster, got "):
        trainer(callback(latency=0.01, include=("net.*",))).fit(module, data())


class TestArguments:
    @pytest.mark.parametrize("macs", [0.0, 1.0, -1])
    def test_macs(self, macs):
        with pytest.raises(ValueError, match=f"need 0 < macs < 1, got macs={macs}"):
            ChannelPruningCallback(macs=macs)

    @pytest.mark.parametrize("name", ["parameters", "latency", "channels"])
    def test_other_budgets(self, name):
        with pytest.raises(ValueError, match=f"need 0 < {name} < 1, got {name}=1.5"):
            ChannelPruningCallback(**{name: 1.5})

    def test_two_budgets(self):
        with pytest.raises(
            ValueError, match="need one of macs, parameters, latency and channels, got macs=0.5 and channels=0.5"
        ):
            ChannelPruningCallback(macs=0.5, channels=0.5)

    def test_channels_that_remove_nothing(self):
        message = (
            r"need channels <= 0\.750 .* with round_to=8, got channels=0\.9: lower channels to remove more, or lower"
        )
        with pytest.raises(ValueError, match=message):
            trainer(callback(channels=0.9, round_to=8)).fit(Module(), data())

    def test_a_criterion_of_single_weights(self):
        with pytest.raises(TypeError, match=r"got pruning\.criteria\.taylor\(.*\): use channels\.criteria\.taylor"):
            ChannelPruningCallback(criterion=pruning_criteria.taylor)

    def test_a_criterion_that_reads_inputs(self):
        with pytest.raises(
            ValueError, match="need a criterion that reads the gradient or nothing, got inputs by <func"
        ):
            ChannelPruningCallback(criterion=reads("inputs")(lambda members: members[0].weight.sum(1)))

    def test_round_to(self):
        with pytest.raises(ValueError, match="need round_to >= 1, got round_to=0"):
            ChannelPruningCallback(round_to=0)

    def test_decay(self):
        with pytest.raises(ValueError, match="need 0 <= decay < 1, got decay=1"):
            ChannelPruningCallback(decay=1)

    def test_reach(self):
        with pytest.raises(
            ValueError,
            match=r"(?s)need layers that can lose channels with round_to=16, got macs=0\.5.* the model: net\.head",
        ):
            trainer(callback(round_to=16)).fit(Module(), data())

    def test_two_prunings_of_a_weight(self):
        with pytest.raises(ValueError, match="need callbacks with different places in the order of projection"):
            trainer(callback(), PruningCallback(0.5)).fit(Module(), data())


@pytest.mark.parametrize("criterion", [criteria.magnitude, criteria.taylor, criteria.batchnorm_scale])
def test_whole_channels_are_zero(criterion):
    torch.manual_seed(0)
    module = Module(weight_decay=0.1)
    pruning = callback(criterion=criterion, remove=False)
    trainer(pruning).fit(module, data())
    assert 0.35 < pruning.metrics()["macs"] <= 0.5
    zero = {name: int((p.flatten(1) == 0).all(1).sum()) for name, p in module.net.named_parameters() if p.ndim == 4}
    assert zero["stem.weight"] == zero["conv2.weight"]
    assert sum(zero.values()) > 0
    gone = (module.net.conv1.weight.flatten(1) == 0).all(1)
    assert not module.net.norm1.weight[gone].any()
    assert not module.net.norm1.bias[gone].any()
    assert not module.net.conv2.weight[:, gone].any()


def test_the_budget_is_approached_along_the_schedule():
    module, seen = Module(), []

    class Watch(ChannelPruningCallback):
        def update(self, weights):
            super().update(weights)
            seen.append((self.strength, self.metrics()["macs"]))

    trainer(Watch(round_to=1, every_n_steps=1, schedule=Linear(0.1, 0.6))).fit(module, data())
    assert len(seen) > 5
    for strength, macs in seen:
        assert 1 - 0.5 * strength - 0.15 < macs <= 1 - 0.5 * strength


def test_a_budget_of_parameters():
    module = Module()
    dense = sum(p.numel() for p in module.parameters())
    pruning = callback(parameters=0.4, round_to=1)
    trainer(pruning).fit(module, data())
    fraction = sum(p.numel() for p in module.parameters()) / dense
    assert 0.3 < fraction <= 0.4
    assert pruning.metrics()["parameters"] == pytest.approx(fraction)


def test_the_same_fraction_of_every_layer():
    module = Module(net=Residual(16))
    dense = {name: layer.out_channels for name, layer in module.net.named_modules() if hasattr(layer, "out_channels")}
    for kept in (0.75, 0.5, 0.5):  # fit again: what the first run has removed counts
        trainer(callback(channels=kept, round_to=1)).fit(module, data())
        left = {n: layer.out_channels for n, layer in module.net.named_modules() if hasattr(layer, "out_channels")}
        assert left == {name: round(count * kept) for name, count in dense.items()}


class Stopwatch:
    """A latency equal to the fraction of the parameters that is left, times a factor."""

    def __init__(self, monkeypatch):
        self.slower = 1.0
        monkeypatch.setattr("lightning_compress.channels.budget.latencies.relative_latency", self)

    def __call__(self, module, reference, example, runner):
        counts = [sum(p.numel() for p in model.parameters()) for model in (module, reference)]
        return self.slower * counts[0] / counts[1]


def test_a_budget_of_latency_is_measured(monkeypatch):
    Stopwatch(monkeypatch)
    module = Module()
    dense = sum(p.numel() for p in module.parameters())
    trainer(callback(latency=0.5, round_to=1)).fit(module, data())
    assert 0.3 < sum(p.numel() for p in module.parameters()) / dense <= 0.55
    before = module.state_dict()["net.stem.weight"].shape
    trainer(callback(latency=0.6, round_to=1)).fit(module, data())
    assert module.state_dict()["net.stem.weight"].shape == before


@pytest.mark.parametrize("remove", [True, False])
def test_the_narrowed_model_is_timed_at_the_end(monkeypatch, remove, caplog):
    """Channels that stay as zeros are removed from the copy that is timed."""
    caplog.set_level("INFO")
    watch, module, pruning = Stopwatch(monkeypatch), Module(), callback(latency=0.5, round_to=1, remove=remove)
    dense = sum(p.numel() for p in module.parameters())
    trainer(pruning).fit(module, data())
    if not remove:
        remove_zero_channels(module, next(iter(data()))[0])
    left = sum(p.numel() for p in module.parameters()) / dense
    assert pruning.report()["latency"] == pytest.approx(left)
    assert f"ChannelPruningCallback: {left:.3g} of the latency left, asked for 0.5" in caplog.text
    assert "missed" not in pruning.report()
    assert watch.slower == 1.0


def test_a_latency_that_is_missed_is_named(monkeypatch):
    watch = Stopwatch(monkeypatch)

    class Slower(Callback):
        def on_train_end(self, *_):
            watch.slower = 2.0

    pruning = callback(latency=0.6, round_to=1)
    with pytest.warns(
        UserWarning, match=r"ChannelPruningCallback missed latency=0\.6 by .* is left, measured in PyTorch"
    ):
        trainer(pruning, Slower()).fit(Module(), data())
    assert "missed latency=0.6" in pruning.report()["missed"]


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")
def test_a_resumed_run_does_not_measure_again(monkeypatch, tmp_path):
    watch = Stopwatch(monkeypatch)
    run = trainer(callback(latency=0.6), max_steps=3, max_epochs=-1)
    run.fit(Module(), data())
    run.save_checkpoint(tmp_path / "m.ckpt")
    watch.slower = 100.0
    pruning = callback(latency=0.6)
    with pytest.warns(UserWarning, match="missed latency=0.6"):  # at the end of fit, on the slower machine
        trainer(pruning, max_steps=6, max_epochs=-1).fit(Module(), data(), ckpt_path=tmp_path / "m.ckpt")
    with pytest.raises(
        ValueError, match=r"need a model that .* faster, got .* for latency=0\.6, measured with .* round_to=2,"
    ):
        trainer(callback(latency=0.6)).fit(Module(), data())


def test_latency_is_measured_in_the_runtime_that_is_given(monkeypatch):
    """A runtime in which a run returns its parameters, and a clock that reads them."""

    def runtime(module, example):
        assert not module.training
        return lambda: sum(p.numel() for p in module.parameters())

    monkeypatch.setattr("lightning_compress.channels.budget.latencies.time_ratio", lambda run, other: run() / other())
    module = Module()
    dense = sum(p.numel() for p in module.parameters())
    trainer(callback(latency=0.5, runtime=runtime, round_to=1)).fit(module, data())
    assert 0.3 < sum(p.numel() for p in module.parameters()) / dense <= 0.55


def test_a_runtime_without_a_budget_of_latency_is_refused():
    with pytest.raises(ValueError, match=r"need latency= to measure it in a runtime, got runtime=OnnxRuntime.* macs=0"):
        ChannelPruningCallback(0.5, runtime=OnnxRuntime())
    with pytest.raises(TypeError, match="need runtime as an object, got the class OnnxRuntime"):
        ChannelPruningCallback(latency=0.5, runtime=OnnxRuntime)
    with pytest.raises(TypeError, match="need runtime as a function or an object, got 'onnxruntime'"):
        ChannelPruningCallback(latency=0.5, runtime="onnxruntime")


def test_excluded_layers_keep_their_channels():
    module = Module(net=Residual(16))
    trainer(callback(macs=0.6, exclude=("net.stem",), remove=False)).fit(module, data())
    assert not (module.net.stem.weight.flatten(1) == 0).all(1).any()
    assert (module.net.conv1.weight.flatten(1) == 0).all(1).any()


def test_the_first_training_examples_are_looked_up_without_a_trace():
    seen = []

    class Watch(Module):
        def training_step(self, batch, batch_idx):
            seen.append((batch[0].sum().item(), torch.rand(()).item()))
            return super().training_step(batch, batch_idx)

    for callbacks in ([], [callback()]):
        torch.manual_seed(0)
        loader = torch.utils.data.DataLoader(data().dataset, 8, shuffle=True)
        trainer(*callbacks, max_steps=5, max_epochs=-1).fit(Watch(), loader)
    assert seen[:5] == seen[5:]


def test_named_inputs():
    class Named(Module):
        def forward(self, pixels):
            return self.net(pixels)

        def training_step(self, batch, batch_idx):
            return super().training_step((batch["pixels"], batch["label"]), batch_idx)

    samples = [{"pixels": x, "label": y} for x, y in data().dataset]
    trainer(callback(), max_steps=4).fit(Named(), torch.utils.data.DataLoader(samples, 8))


class Labelled(Module):
    """Batches are mappings; ``forward`` takes all of their entries."""

    def forward(self, **batch):
        return self.net(batch["pixels"])

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(**batch), batch["label"])


class OneMapping(Labelled):
    """``forward`` takes one mapping and returns a dataclass."""

    def forward(self, batch):
        return Scores(self.net(batch["pixels"]))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch).scores, batch["label"])


class Halves(Labelled):
    """``forward`` takes three tensors of a sequence, the last of which are numbers to add to the scores."""

    def forward(self, upper, lower, bias):
        return self.net(torch.cat([upper, lower], 2)) + bias[:, None]

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(*batch[:3]), batch[3])


@dataclass
class Scores:
    scores: torch.Tensor


@pytest.mark.parametrize("kind", [Labelled, OneMapping, Halves])
def test_the_inputs_of_forward_are_found_in_a_batch(kind):
    samples = [{"pixels": x, "label": y} for x, y in data().dataset]
    if kind is Halves:
        samples = [(x[:, :4], x[:, 4:], x.mean(), y) for x, y in data().dataset]
    pruning = callback(macs=0.5)
    trainer(pruning, max_steps=4).fit(kind(), torch.utils.data.DataLoader(samples, 8))
    assert pruning.metrics()["macs"] <= 0.5


def test_a_random_augmentation_of_the_first_examples_does_not_change_the_run():
    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, index):
            x, y = data().dataset[index]
            return x + torch.rand(()), y

    class Watch(Module):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch[0].view(-1, 1, 8, 8), batch[1]

        def training_step(self, batch, batch_idx):
            seen.append(batch[0].sum().item())
            return super().training_step(batch, batch_idx)

    seen = []
    for callbacks in ([], [callback()]):
        module = Watch()
        torch.manual_seed(0)
        trainer(*callbacks, max_steps=3, max_epochs=-1).fit(module, torch.utils.data.DataLoader(Noisy(), 8))
    assert seen[:3] == seen[3:]


def test_a_schedule_that_starts_at_once():
    pruning = callback(schedule=Constant())
    trainer(pruning, max_steps=2).fit(Module(), data())
    assert pruning.metrics()["macs"] <= 0.5


OPTIMIZERS = {
    "adamw": {},
    "sgd": {"optimizer": torch.optim.SGD, "momentum": 0.9, "weight_decay": 0.1},
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize(
    "others",
    [
        list,
        lambda: [Halved(schedule=Linear(0.2, 0.5), every_n_steps=3)],
        lambda: [EMAWeightAveraging(decay=0.5)],
    ],
    ids=["alone", "with another method", "EMA"],
)
def test_the_narrowed_run_ends_where_the_masked_run_ends(optimizer, others):
    ends = []
    for remove in (True, False):
        torch.manual_seed(0)
        module = Module(**optimizer)
        pruning = callback(remove=remove, schedule=Linear(0.1, 0.5))
        run = trainer(pruning, *others(), precision="64-true", gradient_clip_val=0.5, max_epochs=4)
        run.fit(module, doubles())
        ends.append(
            (outcome(module), sum(p.numel() for p in module.parameters()), run.optimizers[0].param_groups[0]["lr"])
        )
    (narrowed, small, lr), (masked, large, same) = ends
    torch.testing.assert_close(narrowed, masked, rtol=1e-8, atol=1e-10)
    assert small < 0.7 * large
    assert lr == same


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
def test_an_average_that_began_before_removal_goes_on_after_it():
    module = Module()
    trainer(callback(), StochasticWeightAveraging(1e-3, 0.4, annealing_epochs=1), max_epochs=4).fit(module, data())
    assert module.net.conv1.weight.shape != (16, 8, 3, 3)
    assert outcome(module).isfinite().all()


def test_removal_changes_nothing_at_the_moment_it_is_made():
    differences = []

    class Watch(ChannelPruningCallback):
        def _remove_masked(self, run, trainer, module):
            before = outcome(module)
            super()._remove_masked(run, trainer, module)
            differences.append(((outcome(module) - before).abs().max() / before.abs().max()).item())
            module.train()

    module = Module()
    trainer(Watch(round_to=2)).fit(module, data())
    assert len(differences) == 1
    assert differences[0] < 1e-5


@pytest.fixture
def one_thread(monkeypatch):
    """A forked process waits for ever for the threads that its parent's OpenMP pool had."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # or Lightning sets the number again in the child
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore:.*channels stay as zeros")  # in the forked process
def test_strategies_that_return_no_smaller_model_keep_zeros(one_thread):
    module = Module()
    trainer(callback(), strategy="ddp_fork", devices=1).fit(module, data())
    assert module.net.conv1.weight.shape == (16, 8, 3, 3)
    assert (module.net.conv1.weight.flatten(1) == 0).all(1).any()


def test_fit_again_leaves_the_small_model_as_it_is():
    module, pruning = Module(), callback()
    trainer(pruning).fit(module, data())
    shapes = [p.shape for p in module.parameters()]
    trainer(pruning).fit(module, data())
    trainer(callback()).fit(module, data())
    assert [p.shape for p in module.parameters()] == shapes


def _ranks():
    torch.manual_seed(0)
    module = Module()
    run = trainer(callback(), strategy="ddp", devices=2, use_distributed_sampler=True)
    run.fit(module, data())
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


def test_every_rank_has_the_same_small_model():
    first, second = run_distributed(_ranks)
    assert first["net.conv1.weight"].shape != (16, 8, 3, 3)
    for name in first:
        assert (first[name] == second[name]).all(), name


class Divided(Module):
    """The first layer has an optimizer of its own."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizers = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        for optimizer in optimizers:
            optimizer.step()

    def configure_optimizers(self):
        first = list(self.net.conv1.parameters())
        rest = [p for p in self.parameters() if not any(p is one for one in first)]
        return [torch.optim.SGD(rest, 0.05, momentum=0.9), torch.optim.SGD(first, 0.05, momentum=0.9)]


def test_gradients_of_several_optimizers():
    module = Divided()
    pruning = callback(criterion=criteria.taylor)
    trainer(pruning).fit(module, data())
    assert pruning.metrics()["macs"] <= 0.5


@pytest.mark.filterwarnings("ignore:ChannelPruningCallback. the run ended at 100% of its length")
def test_frozen_channels_are_waited_for_and_said():
    module = Module()
    module.net.conv1.requires_grad_(False)
    module.net.norm1.requires_grad_(False)
    with pytest.warns(
        UserWarning, match=r"waits: its criterion reads gradients, and none has reached net\.conv1 so far"
    ):
        trainer(callback(criterion=criteria.taylor)).fit(module, data())


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_true_precision(precision):
    module = Module()
    pruning = callback()
    trainer(pruning, precision=precision).fit(module, data())
    assert module.net.conv1.weight.dtype == {"64-true": torch.float64, "bf16-true": torch.bfloat16}[precision]
    assert pruning.metrics()["macs"] <= 0.5


def test_a_module_that_is_compiled_as_a_whole():
    class Quiet(Module):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

    plain, whole = Quiet(), Quiet()
    whole.load_state_dict(plain.state_dict())
    for given in (plain, torch.compile(whole, backend="eager")):
        torch.manual_seed(0)
        trainer(callback()).fit(given, data())
    assert whole.net.conv1.weight.shape == plain.net.conv1.weight.shape
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in plain.state_dict().items())


@pytest.mark.filterwarnings("ignore:The .train_dataloader. does not have many workers")
@pytest.mark.parametrize("budget", [{"macs": 0.5}, {"latency": 0.9, "round_to": 1}])
def test_a_learning_rate_is_found_before(budget, monkeypatch):
    Stopwatch(monkeypatch)  # on a busy machine so small a model takes any time

    class Tunable(Module):
        lr = 0.05

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), self.lr)

    module, pruning = Tunable(), callback(**budget)
    run = trainer(pruning)
    Tuner(run).lr_find(module, data(), num_training=3, update_attr=False)
    run.fit(module, data())
    assert pruning.strength == 1.0
    assert pruning.metrics()["macs"] < 1
