import copy

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn

from lightning_compress.loading import load_compressed
from lightning_compress.lowering.layers import QuantizedLayer, quantize_layer_
from lightning_compress.lowering.modules import lower
from lightning_compress.quantization import PerGroup, PerTensor, QATCallback, scales
from lightning_compress.quantization.activations.biases import round_bias_
from lightning_compress.quantization.granularities import PerChannel
from lightning_compress.schedules import Linear
from tests.support.classifiers import Conv, Dense, fit, loader
from tests.support.runs import resumes, uninterrupted

READ = 0.013
GAMMA = torch.tensor([1.5, -2.0, 0.0, -0.1, 0.02, 0.7])


def quantized(layer, granularity=PerChannel(), scale=scales.absmax):
    with torch.no_grad():
        grid = scale(granularity.rows(layer.weight), 8)
        layer.weight.copy_(grid.project(layer.weight))
    return layer, grid


def normalized(norm):
    torch.manual_seed(0)
    with torch.no_grad():
        norm.weight.copy_(GAMMA)
        norm.bias.uniform_(-1, 1)
        norm.running_mean.uniform_(-0.3, 0.3)
        norm.running_var.uniform_(0.5, 2)
    return norm.eval()


def folded_and_unit(layer, norm, grid):
    """The folded bias and the unit of the sums, in numpy."""
    gain = norm.weight.detach().double().numpy() / np.sqrt(norm.running_var.double().numpy() + norm.eps)
    bias = 0 if layer.bias is None else layer.bias.detach().double().numpy()
    folded = norm.bias.detach().double().numpy() + (bias - norm.running_mean.double().numpy()) * gain
    unit = READ * np.abs(gain) * grid.scale.double().numpy().ravel()
    return folded, unit


@pytest.mark.parametrize("granularity", [PerChannel(), PerTensor()])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["conv", "linear"])
@torch.no_grad()
def test_the_folded_bias_is_an_integer_of_the_sums(granularity, bias, kind):
    torch.manual_seed(1)
    if kind == "conv":
        layer, norm, x = nn.Conv2d(3, 6, 3, bias=bias), normalized(nn.BatchNorm2d(6)), torch.randn(2, 3, 8, 8)
    else:
        layer, norm, x = nn.Linear(9, 6, bias=bias), normalized(nn.BatchNorm1d(6)), torch.randn(7, 9)
    layer, grid = quantized(layer, granularity)
    before, state = norm(layer(x)), copy.deepcopy((layer.state_dict(), norm.state_dict()))
    round_bias_(layer, grid, torch.tensor(READ), norm)
    folded, unit = folded_and_unit(layer, norm, grid)
    alive = GAMMA.numpy() != 0
    sums = folded[alive] / unit[alive]
    digits = np.finfo(np.float32).eps * np.abs(sums)  # kernels have the unit in float32
    assert (np.abs(sums - np.rint(sums)) < 1e-3 + digits).all()
    assert digits.max() < 0.2
    moved = (norm(layer(x)) - before).abs().transpose(0, 1).flatten(1).amax(1).numpy()
    assert (moved <= 0.5 * unit + 2e-6).all()
    assert moved[alive].max() > 0
    changed = {name for name, value in norm.state_dict().items() if not torch.equal(value, state[1][name])}
    assert changed == {"running_mean"}
    assert norm.running_mean[2] == state[1]["running_mean"][2]
    assert all(torch.equal(value, layer.state_dict()[name]) for name, value in state[0].items())
    mean = norm.running_mean.clone()
    round_bias_(layer, grid, torch.tensor(READ), norm)
    assert torch.equal(norm.running_mean, mean)


@pytest.mark.parametrize("granularity", [PerChannel(), PerTensor()])
@pytest.mark.parametrize("norm", [None, nn.BatchNorm1d(6, track_running_stats=False)])
@torch.no_grad()
def test_without_statistics_the_bias_itself_is_rounded(granularity, norm):
    layer, grid = quantized(nn.Linear(9, 6), granularity, scales.minmax)
    bias = layer.bias.double().numpy()
    round_bias_(layer, grid, torch.tensor(READ), norm)
    unit = READ * grid.scale.double().numpy().ravel()
    np.testing.assert_allclose(layer.bias.double().numpy(), np.rint(bias / unit) * unit, rtol=1e-6, atol=0)
    assert not np.array_equal(layer.bias.numpy(), bias)


@pytest.mark.parametrize(
    ("granularity", "scale", "read", "dtype"),
    [
        (PerGroup(3), scales.absmax, READ, torch.float32),
        (PerChannel(), scales.minmax, READ, torch.float32),  # affine, under a negative gamma
        (PerChannel(), scales.absmax, 1e-12, torch.float32),  # more than 32 bits
        (PerChannel(), scales.absmax, READ, torch.bfloat16),
    ],
)
@torch.no_grad()
def test_what_cannot_be_rounded_is_left_alone(granularity, scale, read, dtype):
    layer, grid = quantized(nn.Linear(9, 6, bias=False), granularity, scale)
    norm = normalized(nn.BatchNorm1d(6)).to(dtype)
    state = copy.deepcopy(norm.state_dict())
    round_bias_(layer, grid, torch.tensor(read), norm)
    assert all(torch.equal(value, norm.state_dict()[name]) for name, value in state.items())


def furthest(module: nn.Module) -> float:
    """How far from an integer of the sums the bias of any lowered layer is."""
    with torch.no_grad():
        lowered = lower(module, (next(iter(loader()))[0][:2],))
    offs = []
    for layer in lowered.modules():
        if isinstance(layer, QuantizedLayer):
            sums = layer.bias.double() / (layer.reads.scale * layer.integers.scale.double())
            offs.append((sums - sums.round()).abs().max())
    assert len(offs) >= 2
    return float(max(offs))


class Watch(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_validation_batch_start(self, trainer, module, *args) -> None:
        if args[1] == 0 and len(self.seen) <= trainer.current_epoch:
            self.seen.append(furthest(module))


@pytest.mark.parametrize(("kind", "last"), [(Conv, "net.fc"), (Dense, "net.3")])
@pytest.mark.parametrize(
    "callbacks",
    [
        lambda last: [QATCallback()],
        lambda last: [QATCallback(every_n_steps=3), EMAWeightAveraging(decay=0.9)],
        lambda last: [QATCallback(8, exclude=(last,)), QATCallback(4, include=(last,))],
    ],
    ids=["one", "averaged", "two"],
)
def test_validations_and_the_end_see_rounded_biases(kind, last, callbacks):
    module, watch = kind(), Watch()
    fit(module, *callbacks(last), watch)
    assert len(watch.seen) == 2
    assert max(watch.seen) < 5e-3
    assert furthest(module) < 5e-3


@pytest.mark.parametrize("options", [{}, {"max_steps": 12}], ids=str)
@pytest.mark.parametrize("averaged", [False, True])
def test_a_run_without_validation_saves_and_ends_with_rounded_biases(tmp_path, options, averaged):
    module, checkpoint = Conv(), ModelCheckpoint(tmp_path)
    callbacks = [QATCallback(), checkpoint, *([EMAWeightAveraging(decay=0.9)] if averaged else [])]
    fit(module, *callbacks, limit_val_batches=0, **options)
    assert furthest(module) < 5e-3
    saved = load_compressed(Conv, checkpoint.best_model_path)
    for name, value in module.state_dict().items():
        assert torch.equal(value, saved.state_dict()[name]), name


class Means(Callback):
    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, module, *args) -> None:
        self.seen.append(module.net.stem[1].running_mean.clone())


def test_means_move_at_rest_and_once_weights_are_on_their_grids():
    before, after = Means(), Means()
    fit(Conv(), before, QATCallback(schedule=Linear(0.0, 0.9), every_n_steps=1), after, max_epochs=3)
    moved = [not torch.equal(*pair) for pair in zip(before.seen, after.seen, strict=True)]
    assert [step for step, one in enumerate(moved, 1) if one] == [24]  # strength 1 from step 22 on


@resumes
@pytest.mark.parametrize("kind", [Conv, Dense])
@pytest.mark.parametrize("averaged", [False, True])
def test_a_run_resumed_where_a_validation_was_due_ends_in_the_same_bits(tmp_path, kind, averaged):
    def callbacks():
        return [QATCallback(every_n_steps=2), *([EMAWeightAveraging(decay=0.9)] if averaged else [])]

    checked = []

    class Count(Callback):
        def on_validation_start(self, trainer, module) -> None:
            checked.append(trainer.global_step)

    def run(*others, ckpt_path=None):
        torch.manual_seed(0)
        module = kind()
        checked.clear()
        fit(module, *callbacks(), Count(), *others, ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, [8])
    assert checked == [16]  # Lightning leaves out the validation that was due


@torch.no_grad()
def test_a_channel_of_zeros_has_a_bias_as_fine_as_others():
    layer, grid = quantized(nn.Linear(9, 6, bias=False))
    norm = normalized(nn.BatchNorm1d(6))
    folded = quantize_layer_(layer, grid).integers
    assert folded.fold(norm)
    bias = folded.bias.clone()
    folded.round_bias(torch.tensor(READ))
    assert (folded.bias - bias)[2].abs() <= READ * folded.scale.max()
    assert abs(folded.bias[2]) > 0
