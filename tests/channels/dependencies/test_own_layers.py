"""Linear layers of one's own, as those of torch_geometric: modules that call ``F.linear`` with a weight of theirs."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_compress import (
    ChannelPruningCallback,
    PruningCallback,
    QATCallback,
    export,
    load_compressed,
    remove_zero_channels,
)
from lightning_compress.channels.dependencies.removable import find_removable
from lightning_compress.channels.groups import mask_, removed_entries
from lightning_compress.channels.removal.surgery import narrow_module_
from lightning_compress.schedules import Linear, Step
from tests.support.nets import Module, data, doubles, outcome
from tests.support.promises import on_grids
from tests.support.runs import Randomness, resumes, same, trainer, uninterrupted
from tests.support.toys import Digits, build, fit

IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Own(nn.Module):
    """The linear layer of torch_geometric."""

    def __init__(self, in_channels, out_channels, bias=True):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels) / math.sqrt(in_channels))
        self.bias = nn.Parameter(torch.randn(out_channels)) if bias else None

    def forward(self, x):
        return F.linear(x, self.weight, self.bias)


class Named(Own):
    """By keywords, and without an attribute for the bias; the result has the number of outputs that the layer notes."""

    def __init__(self, *args):
        super().__init__(*args)
        del self.bias

    def forward(self, x):
        return F.linear(weight=self.weight, input=x).view(-1, self.out_channels)


class Scaled(Own):
    """Has a parameter that no layer of torch has."""

    def __init__(self, *args):
        super().__init__(*args)
        self.scale = nn.Parameter(torch.rand(self.out_channels))

    def forward(self, x):
        return super().forward(x) * self.scale


class Net(nn.Module):
    """A convolution, a layer on sequences, a hidden layer; own layers before and after those of torch."""

    def __init__(self, kind=Own):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.tokens = Own(8, 16)
        # Adam would magnify the rounding errors that are the gradient of a bias before the normalization.
        self.mix = nn.Linear(16, 12, bias=False)
        self.flat = kind(12, 16, False)
        self.norm = nn.BatchNorm1d(16)
        self.hidden = Own(16, 16, bias=False)
        self.head = Own(16, 3)

    def forward(self, x):
        x = F.relu(self.stem(x)).flatten(2).transpose(1, 2)
        x = self.mix(F.gelu(self.tokens(x))).mean(1)
        x = F.relu(self.norm(self.flat(x)))
        return self.head(F.relu(self.hidden(x)))


@pytest.mark.parametrize("kind", [Own, Named])
def test_removal_equals_masking(kind):
    torch.manual_seed(0)
    model = Net(kind).eval()
    plan = find_removable(model, IMAGES)
    found = {group.name: group.units for group in plan.groups}
    assert found == {"stem": 8, "tokens": 16, "mix": 12, "flat": 16, "hidden": 16}
    assert plan.left_alone == {"head": "its channels are an output of the model"}
    removed = {group.name: torch.arange(group.units) % 2 == 1 for group in plan.groups}
    masked, small = copy.deepcopy(model), copy.deepcopy(model)
    mask_(masked.state_dict(), removed_entries(plan.groups, removed))
    narrow_module_(small, plan.groups, removed)
    torch.testing.assert_close(small(IMAGES), masked(IMAGES), rtol=1e-5, atol=1e-6)
    shapes = {name: tuple(layer.weight.shape) for name, layer in small.named_modules() if isinstance(layer, Own)}
    assert shapes == {"tokens": (8, 4), "flat": (8, 6), "hidden": (8, 8), "head": (3, 8)}
    sizes = {name: (layer.out_channels, layer.in_channels) for name, layer in small.named_modules() if name in shapes}
    assert sizes == shapes
    assert [type(layer) for layer in model.modules()] == [type(layer) for layer in Net(kind).modules()]


def test_a_layer_with_a_parameter_of_another_kind_stays_whole_and_is_named():
    plan = find_removable(Net(Scaled), IMAGES)
    assert {group.name for group in plan.groups} == {"stem", "tokens", "mix", "hidden"}
    assert plan.left_alone["flat"].startswith("the model does not run without them")


def callback(**options):
    budget = {} if "channels" in options else {"parameters": 0.5}
    settings = {"round_to": 2, "schedule": Linear(0.1, 0.5), "every_n_steps": 2}
    return ChannelPruningCallback(**budget | settings | options)


@pytest.mark.parametrize("optimizer", [{}, {"optimizer": torch.optim.SGD, "momentum": 0.9}], ids=["adamw", "sgd"])
def test_the_narrowed_run_ends_where_the_masked_run_ends(optimizer):
    ends = []
    for remove in (True, False):
        torch.manual_seed(0)
        module = Module(net=Net(), **optimizer)
        trainer(callback(remove=remove), precision="64-true", max_epochs=4).fit(module, doubles())
        ends.append((outcome(module), sum(p.numel() for p in module.parameters())))
    (narrowed, left), (masked, dense) = ends
    torch.testing.assert_close(narrowed, masked, rtol=1e-8, atol=1e-10)
    assert left <= dense / 2
    remove_zero_channels(module, torch.zeros(2, 1, 8, 8, dtype=torch.float64))
    torch.testing.assert_close(outcome(module), masked, rtol=1e-8, atol=1e-10)
    assert sum(p.numel() for p in module.parameters()) == left


def test_patterns_choose_among_own_layers():
    module = Module(net=Net())
    trainer(callback(channels=0.5, exclude=("net.tokens",))).fit(module, data())
    net = module.net
    assert (len(net.tokens.weight), len(net.flat.weight), len(net.hidden.weight)) == (16, 8, 8)
    module = Module(net=nn.Sequential(nn.Flatten(), Own(64, 16), nn.ReLU(), Own(16, 3)))  # and no other layers
    trainer(callback()).fit(module, data())
    assert len(module.net[1].weight) <= 8


class OwnDigits(Digits):
    """Digits with linear layers of one's own."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.net[9], self.net[11] = Own(64, 32), Own(32, 10)


@resumes
@pytest.mark.parametrize("others", [list, lambda: [QATCallback(include=("*", "net.9", "net.11"), schedule=Step(0.2))]])
def test_files_and_resumed_runs(others, tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = build(kind=OwnDigits)
        last = fit(module, *others(), callback(), Randomness(), *callbacks, ckpt_path=ckpt_path)
        last.save_checkpoint(tmp_path / "last.ckpt")
        return module

    module = uninterrupted(run, tmp_path, (5, 17, 18, 19, 30))
    assert len(module.net[9].weight) == module.net[11].in_channels < 32
    assert on_grids(module) == (others is not list)
    export(module, tmp_path / "m.lcz")
    for path in ("last.ckpt", "m.lcz"):
        loaded = load_compressed(OwnDigits, tmp_path / path)
        assert same(loaded, module)
        assert loaded.net[9].out_channels == module.net[9].out_channels
        assert torch.equal(loaded.eval()(IMAGES), module.eval()(IMAGES))


def test_masks_of_another_method_are_cut_with_an_own_layer():
    module = build(kind=OwnDigits)
    pruning = PruningCallback(0.5, include=("net.0",), schedule=Linear(0.1, 0.3))
    fit(module, callback(exclude=("net.0",)), pruning)
    assert len(module.net[9].weight) < 32
    assert int((module.net[0].weight == 0).sum()) == 36
