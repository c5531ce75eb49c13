import copy

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from examples.loaders import TensorLoader
from lightning_compress import PruningCallback
from lightning_compress.deploy import export
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.loading import load_compressed
from lightning_compress.lowering.modules import lower
from lightning_compress.quantization import QATCallback, observers, profiles
from lightning_compress.quantization.activations.quantizers import (
    ActivationQuantizer,
    Place,
    RowQuantizer,
    quantizers_of,
)
from lightning_compress.quantization.activations.ranges import followed
from lightning_compress.quantization.dataflow.flow import Dataflow
from lightning_compress.quantization.dataflow.placement import place_quantizers
from lightning_compress.quantization.dataflow.traces import Trace
from lightning_compress.schedules import Step
from tests.support.classifiers import Classifier, Conv, ResNet, fit, loader, mlp, trainer
from tests.support.distributed import run_distributed
from tests.support.runs import resumes, uninterrupted


def places(net: nn.Module, *shape: int, round_branches: bool = True) -> set[tuple[str, str]]:
    layers = [name for name, module in net.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    with Trace(net) as trace:
        net(torch.randn(2, *shape))
    placement = place_quantizers(Dataflow(trace), layers, profiles.Profile(round_branches=round_branches))
    assert not placement.missed
    return {(place.module, place.side) for place in placement.places}


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("low", [0.0, -1.3])
def test_values_are_bit_for_bit_those_of_the_native_operator(bits, low):
    x = 3 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    quantizer = ActivationQuantizer(bits, torch.tensor(low), torch.tensor(2.1))
    native = torch.fake_quantize_per_tensor_affine(x, quantizer.scale, quantizer.zero_point.int(), 0, quantizer.levels)
    assert torch.equal(quantizer.quantize(x), native)
    assert quantizer.quantize(torch.zeros(1)) == 0


def test_the_gradient_passes_straight_and_half_precision_is_kept():
    quantizer = ActivationQuantizer(8, torch.tensor(0.0), torch.tensor(1.0))
    x = torch.tensor([0.3, 2.0], dtype=torch.bfloat16, requires_grad=True)
    y = quantizer.quantize(x)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert x.grad.tolist() == [1, 1]
    assert torch.equal(y, quantizer.quantize(x.detach().float()).bfloat16())


def test_ranges():
    x = torch.cat([torch.linspace(-1, 2, 3001), torch.tensor([50.0])])
    assert [float(bound) for bound in observers.minmax(x, 8)] == [-1, 50]
    low, high = observers.percentile(x, 8, fraction=0.999)
    assert float(low) == pytest.approx(-1, abs=0.01)
    assert float(high) == pytest.approx(2, abs=0.01)
    assert observers.mse(x, 4)[1] < 50


def test_a_residual_network_is_quantized_where_tensors_are_produced():
    assert places(ResNet(), 1, 8, 8) == {
        ("stem", "input"),
        ("stem", "output"),
        ("blocks.0.relu", "output"),
        ("blocks.0.bn2", "output"),
        ("blocks.0", "output"),
        ("blocks.1.relu", "output"),
        ("blocks.1.bn2", "output"),
        ("blocks.1.shortcut", "output"),
        ("blocks.1", "output"),
        ("blocks.2.relu", "output"),
        ("blocks.2.bn2", "output"),
        ("blocks.2.shortcut", "output"),
        ("blocks", "output"),
        ("fc", "input"),
    }


def test_without_branches_only_what_enters_a_layer_is_quantized():
    assert places(ResNet(), 1, 8, 8, round_branches=False) == {
        ("stem", "input"),
        ("stem", "output"),
        ("blocks.0.relu", "output"),
        ("blocks.0", "output"),
        ("blocks.1.relu", "output"),
        ("blocks.1", "output"),
        ("blocks.2.relu", "output"),
        ("fc", "input"),
    }


def test_a_chain_is_quantized_at_its_start_and_behind_each_activation():
    assert places(mlp(), 64) == {("1", "input"), ("2", "output")}
    assert places(nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.Linear(4, 4)), 4) == {("0", "input"), ("0", "output")}


class Functional(nn.Module):
    """One ReLU module for two layers, pooling behind it, an addition in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(4 * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.relu(self.conv1(x)), 2)
        y = self.relu(self.conv2(x))
        y += x
        return self.fc(y.flatten(1))


def test_what_no_module_returns_is_quantized_by_its_readers():
    assert places(Functional(), 1, 8, 8) == {("conv1", "input"), ("conv2", "input"), ("fc", "input")}


class Loose(nn.Module):
    """A cast between two layers, the second of which is used without being called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.second = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.first(x)).double()
        return F.linear(x.float(), self.second.weight)


def test_casts_hide_no_producer_and_functions_no_layer():
    assert places(Loose(), 4) == {("first", "input"), ("relu", "output")}


class Repeating(nn.Module):
    """A block that is used three times on ever larger values, between two layers that are used once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 10)
        self.block = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x.flatten(1))
        for _ in range(3):
            x = 12 * self.block(x)
        return self.last(x)


def test_a_layer_used_several_times_is_quantized_on_the_union_of_its_ranges(tmp_path):
    assert places(Repeating(), 64) == {
        ("first", "input"),
        ("block.0", "input"),
        ("block.2", "input"),
        ("last", "input"),
    }
    module, seen = Classifier(Repeating(), lr=0.001), []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, module, *args) -> None:
            seen.clear()

    module.net.block[0].register_forward_pre_hook(lambda m, args: seen.append(args[0].detach()))
    watch, states = Watch(), []

    class Record(Callback):
        def on_train_batch_end(self, trainer, module, *args) -> None:
            quantizer = quantizers_of(module)[Place("net.block.0", "input")]
            lowest, highest = (min(x.min() for x in seen), max(x.max() for x in seen))
            states.append((quantizer.low.item(), quantizer.high.item(), float(lowest), float(highest)))

    # With 8 bits kernels without VNNI saturate.
    qat = QATCallback(7, decay=0.0, every_n_steps=1, freeze_ranges_at=1.0, schedule=Step(at=0.5))
    trainer(watch, qat, Record()).fit(module, loader(4, 32), loader(2))
    low, high, lowest, highest = states[-1]  # 3 x 512 values fill a window
    assert (low, high) == (lowest, highest)
    assert all(x.numel() for x in seen)
    assert highest > 2 * float(seen[0].max())
    x = torch.cat([x for x, _ in loader(2)])
    path = export(module.eval(), tmp_path / "m.onnx", x[:2])
    operators = OnnxRuntime().operators(path)
    assert (operators.layers, operators.floating) == (8, ())
    (logits,) = OnnxRuntime().load(path)([x])
    with torch.no_grad():
        torch.testing.assert_close(logits, module(x), rtol=0.02, atol=0.02 * float(module(x).abs().max()))


class Pair(Classifier):
    """Two passes of one network in a training step."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + F.mse_loss(self(3 * batch[0]), self(batch[0]))


def test_the_passes_of_one_training_step_have_one_range():
    module = Pair(lr=1e-6)
    fit(module, QATCallback())
    images = torch.cat([x for x, _ in loader()])
    quantizer = quantizers_of(module)[Place("net.1", "input")]
    assert quantizer.high > 2 * images.max()  # the first pass alone ends at the largest value of a batch


class Inside(nn.Module):
    """A layer of which one use reads the weight without a call: no hook can reach its input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.last = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.fc(x.flatten(1)))
        x = torch.relu(self.fc(x))
        return self.last(torch.relu(F.linear(x - 1, self.fc.weight)))


def test_a_use_that_no_hook_reaches_leaves_the_layer_in_float_and_names_it():
    module = Classifier(Inside())
    with pytest.warns(UserWarning, match=r"no quantizer reaches the inputs of net\.fc: "):
        fit(module, QATCallback())
    assert {place.module for place in quantizers_of(module)} == {"net.last"}


def test_after_fit_the_model_computes_on_the_grid():
    module = Conv()
    fit(module, QATCallback())
    module.eval()
    seen = []
    module.net.blocks[0].conv1.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    module(loader().__iter__().__next__()[0])
    quantizer = quantizers_of(module)[Place("net.stem", "output")]
    assert quantizer.positive
    assert torch.equal(quantizer.quantize(seen[0]), seen[0])
    assert len(seen[0].unique()) > 16
    assert set(module.state_dict()) == set(Conv().state_dict())


@pytest.mark.parametrize("range_lr", [0.0, 0.05])
def test_ranges_and_statistics_stand_still_at_the_end(range_lr):
    module, states = Conv(), []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, *args) -> None:
            scales = [quantizer.scale.clone() for quantizer in quantizers_of(module).values()]
            states.append([*scales, module.net.stem[1].running_mean.clone()])

    fit(
        module,
        # A batch gives the last layer 512 values: too few to move its range in every step.
        QATCallback(
            range_lr=range_lr, freeze_ranges_at=0.5, freeze_norms_at=0.75, every_n_steps=1, exclude=("net.fc",)
        ),
        Watch(),
    )

    def equal(a: int, b: int) -> list[bool]:
        return [torch.equal(x, y) for x, y in zip(states[a], states[b], strict=True)]

    assert not any(equal(6, 7))
    assert all(equal(8, 15)[:-1])  # the ranges
    assert not equal(10, 11)[-1]
    assert equal(12, 14)[-1]  # and then, for a validation, it moves to an integer of the sums
    assert module.net.stem[1].training


def test_statistics_go_on_to_the_end_by_default():
    module, seen = Conv(), []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, *args) -> None:
            seen.append(module.net.stem[1].running_mean.clone())

    fit(module, QATCallback(), Watch())
    assert not torch.equal(seen[-1], seen[-2])


@resumes
@pytest.mark.parametrize("range_lr", [0.0, 0.05])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path, range_lr):
    def run(*callbacks, ckpt_path=None):
        torch.manual_seed(0)
        module = Conv()
        callback = QATCallback(range_lr=range_lr, schedule=Step(at=0.4), every_n_steps=2)
        fit(module, callback, *callbacks, ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, (1, 5, 9, 14))


@pytest.mark.parametrize("range_lr", [0.0, 0.05])
@pytest.mark.parametrize("weights_only", [True, False])
def test_a_checkpoint_gives_the_logged_metric(tmp_path, weights_only, range_lr):
    checkpoint = ModelCheckpoint(tmp_path, save_weights_only=weights_only)
    run = fit(Conv(), QATCallback(range_lr=range_lr), checkpoint)
    logged = float(run.callback_metrics["val_loss"])
    loaded = load_compressed(Conv, checkpoint.best_model_path)
    again = trainer().validate(loaded, loader(2), verbose=False)[0]["val_loss"]
    assert again == logged
    with_callback = trainer(QATCallback(), copy.deepcopy(checkpoint))
    assert with_callback.validate(Conv(), loader(2), checkpoint.best_model_path, verbose=False)[0]["val_loss"] == logged
    plain = trainer().validate(Conv.load_from_checkpoint(checkpoint.best_model_path), loader(2), verbose=False)
    assert plain[0]["val_loss"] != logged


def test_a_second_fit_starts_afresh_and_pruning_holds():
    module = Conv()
    for _ in range(2):
        fit(module, QATCallback(), PruningCallback(0.5))
    zeros = sum(int((p == 0).sum()) for n, p in module.named_parameters() if p.ndim > 1)
    assert zeros >= 0.5 * sum(p.numel() for p in module.parameters() if p.ndim > 1) - 1
    assert len(quantizers_of(module)) == 14


@pytest.mark.parametrize("range_lr", [0.0, 0.05])
def test_mixed_precision_trains(range_lr):
    module = Conv()
    fit(module, QATCallback(range_lr=range_lr), precision="bf16-mixed")
    for quantizer in quantizers_of(module).values():
        assert quantizer.scale.dtype == quantizer.high.dtype == torch.float32
        assert quantizer.scale.isfinite()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("observer", [observers.minmax, observers.mse, observers.percentile])
def test_ranges_know_no_default_precision(observer, dtype):
    """True precision of a Trainer changes the default while the model runs."""
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    expected = observer(x, 4)
    torch.set_default_dtype(dtype)
    try:
        found = observer(x, 4)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == expected


class Watched(Callback):
    """The lowest and highest values of the input's quantizer after each batch."""

    def __init__(self) -> None:
        self.ranges: list[tuple[float, float]] = []

    def on_train_batch_end(self, trainer, module, *args) -> None:
        quantizer = next(iter(quantizers_of(module).values()))
        self.ranges.append((quantizer.low.item(), quantizer.high.item()))


class OwnLinear(nn.Module):
    """A linear layer that is none of torch's, as those of graph networks are."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-0.2, 0.2))
        self.register_parameter("bias", nn.Parameter(torch.zeros(outputs)) if bias else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)


class OwnActivated(OwnLinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(super().forward(x))


class OwnBare(nn.Module):
    """It reads no bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-0.2, 0.2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight)


class OwnConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(8, 1, 3, 3).uniform_(-0.5, 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight, stride=2)


class OwnProduct(OwnLinear):
    """No layer operation reads its weight."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.t() + self.bias


@pytest.mark.parametrize(
    ("net", "layers"),
    [
        (lambda: [nn.Flatten(), OwnLinear(64, 32), nn.ReLU(), OwnLinear(32, 10)], 2),
        (lambda: [nn.Flatten(), OwnActivated(64, 32), OwnLinear(32, 10, bias=False)], 2),
        (lambda: [nn.Flatten(), OwnLinear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), OwnLinear(32, 10)], 2),
        (lambda: [nn.Flatten(), OwnBare(64, 32), nn.BatchNorm1d(32), nn.ReLU(), OwnBare(32, 10)], 2),
        (lambda: [OwnConv(), nn.ReLU(), nn.Flatten(), OwnLinear(72, 10)], 2),
    ],
)
def test_a_layer_is_recognized_by_the_operation_that_reads_its_weight(net, layers, tmp_path):
    module = Classifier(nn.Sequential(*net()))
    fit(module, QATCallback(7, include=("net.*",)))  # with 8 bits kernels without VNNI saturate
    assert len(quantizers_of(module)) == layers
    x = torch.cat([x for x, _ in loader()])
    lowered, exact = lower(module, (x[:2],)), lower(module, (x[:2],), exact=True)
    assert not any(key.endswith(".weight") and p.ndim > 1 for key, p in lowered.named_parameters())
    with torch.no_grad():
        want = module.eval()(x)
        step = 0.02 * float(want.max() - want.min())
        torch.testing.assert_close(lowered(x), want, rtol=0, atol=step)
        torch.testing.assert_close(exact(x), want, rtol=0, atol=step)
    path = export(module, tmp_path / "m.onnx", x[:2])
    operators = OnnxRuntime().operators(path)
    assert (operators.layers, operators.floating) == (layers, ())


def test_what_no_layer_operation_reads_stays_float_and_is_named():
    module = Classifier(nn.Sequential(nn.Flatten(), OwnProduct(64, 32), nn.ReLU(), nn.Linear(32, 10)))
    with pytest.warns(UserWarning, match=r"no quantizer reaches the inputs of net\.1: "):
        fit(module, QATCallback(include=("net.*",)))
    assert {place.module for place in quantizers_of(module)} == {"net.2"}


def scaled(factors: list[float], size: int = 16) -> TensorLoader:
    """Batches of 64 inputs, each from -0.5 to 1, times a factor."""
    rows = torch.linspace(-0.5, 1.0, 64 * size).view(size, 64)
    images = torch.cat([factor * rows for factor in factors])
    return TensorLoader(images.view(-1, 1, 8, 8), torch.zeros(len(images), dtype=torch.long), batch_size=size)


def trained(callback: QATCallback, batches: TensorLoader, *callbacks: Callback) -> Classifier:
    seed_everything(0, verbose=False)
    module = Classifier()
    trainer(callback, *callbacks, max_epochs=1).fit(module, batches, loader(2))
    return module


@pytest.mark.parametrize("decay", [0.5, 0.75])
def test_the_decay_of_running_ranges(decay):
    watched = Watched()
    callback = QATCallback(decay=decay, every_n_steps=1, freeze_ranges_at=1.0)
    trained(callback, scaled([2.0, 6.0, 1.0]), watched)
    high, expected = 2.0, [(-1.0, 2.0)]
    for observed in (6.0, 1.0):
        high = decay * high + (1 - decay) * observed
        expected.append((-high / 2, high))
    torch.testing.assert_close(watched.ranges, expected)


def test_what_is_negative_in_a_later_batch_is_represented():
    """Whether a range starts at 0 is not decided by the first batch."""
    batches = scaled([1.0] * 40)
    batches.tensors[0][:16].abs_()
    callback = QATCallback(every_n_steps=1, schedule=Step(at=0.02), freeze_ranges_at=1.0)
    watched = Watched()
    module = trained(callback, batches, watched).eval()
    assert watched.ranges[0] == (0.0, 1.0)
    assert watched.ranges[-1][0] == pytest.approx(-0.5, rel=0.02)
    entering, hidden = quantizers_of(module).values()
    assert not entering.positive
    assert entering.zero_point > 0
    assert hidden.positive  # after a ReLU
    assert hidden.zero_point == 0
    images = batches.tensors[0][16:32]
    torch.testing.assert_close(entering.quantize(images), images, rtol=0, atol=0.02)


def test_a_range_that_is_learned_learns_what_is_negative_in_a_later_batch():
    batches = loader(24)
    batches.tensors[0][:64].abs_()
    callback = QATCallback(every_n_steps=1, range_lr=0.01, schedule=Step(at=0.05), freeze_ranges_at=1.0)
    watched = Watched()
    trained(callback, batches, watched)
    lows = [low for low, _ in watched.ranges]
    assert lows[:4] == [0.0] * 4
    assert max(lows[4:]) < -0.1  # a tenth of what the first batch with negatives holds
    assert len(set(lows[4:])) == 20  # the gradient moves it from then on


def test_a_module_in_evaluation_mode_is_observed_while_others_train():
    """A backbone that is finetuned without dropout, say; the Trainer validates without observing."""

    class Still(Classifier):
        def training_step(self, batch, batch_idx):
            self.net[1].eval()
            return super().training_step(batch, batch_idx)

    module, watched = Still(), Watched()
    callback = QATCallback(decay=0.0, every_n_steps=1, freeze_ranges_at=1.0)
    trainer(callback, watched, max_epochs=1).fit(module, scaled([1.0, 3.0]), loader(2))
    assert watched.ranges == [(-0.5, 1.0), (-1.5, 3.0)]


@pytest.mark.parametrize("observer", [observers.minmax, observers.percentile, observers.mse])
@pytest.mark.parametrize("size", [2, 30, 5000])
def test_ranges_of_few_values_clip_no_more_than_those_of_many(observer, size):
    """Of normal values in 100 batches of ``size``; the running mean of the extremes of two clips 0.2 of their norm."""
    generator = torch.Generator().manual_seed(0)
    batches = torch.randn(100, size, generator=generator)
    quantizer = ActivationQuantizer(8, *observer(batches[0], 8), observer)
    ranges = torch.stack([quantizer.low, quantizer.high])[None]
    for batch in batches:
        quantizer.observe(batch)
        ranges, windows = followed(ranges, torch.stack(quantizer.window)[None], 0.9)
        for state, value in zip(quantizer.window, windows[0], strict=True):
            state.copy_(value)
    quantizer.low, quantizer.high = ranges[0]
    quantizer.rescale()
    x = torch.randn(100_000, generator=generator)
    error = ((quantizer.quantize(x) - x).norm() / x.norm()).item()
    assert error < 0.04
    assert quantizer.scale < 10 / 255


@resumes
def test_a_run_of_tiny_batches_resumes_in_the_middle_of_a_window(tmp_path):
    def run(*callbacks, ckpt_path=None):
        torch.manual_seed(0)
        module = Classifier()
        batches = loader(24, 1)
        batches.tensors[0][:4].abs_()  # the first batches, and the checkpoint, know no negative value
        callback = QATCallback(schedule=Step(at=0.1), every_n_steps=1)
        trainer(callback, *callbacks, max_epochs=1).fit(module, batches, loader(2), ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, (1, 4, 9))


def _ranges(range_lr: float) -> list[float]:
    torch.use_deterministic_algorithms(True)
    seed_everything(0, verbose=False)
    module = Conv()
    run = trainer(QATCallback(range_lr=range_lr, every_n_steps=3), strategy="ddp", devices=2)
    batches = loader()
    if run.global_rank:
        images, labels = batches.tensors
        batches = TensorLoader(2 * images[:16], labels[:16], batch_size=2)  # other images, as many batches
    run.fit(module, batches, loader(2))
    return [float(bound) for q in quantizers_of(module).values() for bound in (q.low, q.high, q.scale)]


@pytest.mark.filterwarnings("ignore:It is recommended to use `self.log")
@pytest.mark.parametrize("range_lr", [0.0, 0.05])
def test_every_rank_has_the_same_ranges(range_lr):
    first, second = run_distributed(_ranges, range_lr)
    assert len(first) == 42
    assert first == second


class Reflecting(nn.Module):
    """The convolution pads what it takes, which no module gives, by itself."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1, padding_mode="reflect")
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(2 * x)).mean((2, 3)))


def test_what_a_convolution_pads_itself_is_quantized_before():
    assert places(Reflecting(), 1, 8, 8) == {("conv", "input"), ("fc", "input")}
    module = Classifier(Reflecting())
    fit(module, QATCallback())
    x = torch.cat([x for x, _ in loader()])
    exact = lower(module, (x[:2],), exact=True)
    with torch.no_grad():
        torch.testing.assert_close(exact(x), module.eval()(x), rtol=1e-4, atol=1e-4)


class Padded(nn.Module):
    """An encoder that is told what is padded; torch leaves that out in evaluation, if it can, by nested tensors."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder, self.fc = nn.TransformerEncoder(layer, 2), nn.Linear(8, 10)

    def forward(self, x):
        rows = x.reshape(-1, 8, 8)
        padded = torch.arange(8) >= 4 + 4 * (rows[:, 0, :1] > 0)
        return self.fc(self.encoder(rows, src_key_padding_mask=padded).mean(1))


def test_an_encoder_of_padded_sequences_is_validated_as_it_is_trained(tmp_path):
    module = Classifier(Padded())
    with pytest.warns(UserWarning, match=r"no quantizer reaches the inputs of net.encoder.layers.0.self_attn.out_proj"):
        run = fit(module, QATCallback())
    assert run.callback_metrics["val_loss"] > 0
    x, _ = next(iter(loader()))
    trained = module.eval()(x).detach()
    with torch.no_grad():
        torch.testing.assert_close(module(x), trained)
    export(module, tmp_path / "m.pt2", x)
    run.save_checkpoint(tmp_path / "m.ckpt")
    loaded = load_compressed(Classifier, tmp_path / "m.ckpt", net=Padded()).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), trained)


@pytest.mark.parametrize("bits", [4, 8])
def test_rows_are_rounded_as_the_native_operator_rounds_channels(bits):
    x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 5).view(1, 5, 1)
    x[1, 2] = 0
    quantizer, most = RowQuantizer(bits), 2 ** (bits - 1) - 1
    rows = x.reshape(-1, 16)
    steps = (rows.abs().amax(1) / most).clamp(min=torch.finfo(torch.float32).eps)
    native = torch.fake_quantize_per_channel_affine(rows, steps, torch.zeros(15).int(), 0, -most, most)
    assert torch.equal(quantizer.quantize(x), native.view_as(x))
    assert quantizer.quantize(x.bfloat16()).dtype == torch.bfloat16
    assert quantizer.quantize(x[:0]).shape == (0, 5, 16)


def test_the_gradient_of_rows_passes_straight_through():
    x = torch.randn(4, 8, requires_grad=True)
    RowQuantizer(4).quantize(x).square().sum().backward()
    assert torch.equal(x.grad, 2 * RowQuantizer(4).quantize(x.detach()))
