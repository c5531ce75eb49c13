"""Latencies are measured of the layers that ship: a runtime of its own notes the models that it was given."""

import logging

import pytest
import torch
from torch import nn

from lightning_compress import BinarizationCallback, CompressionBudget, LowRankCallback, QATCallback, plan
from lightning_compress.channels import ChannelPruningCallback
from lightning_compress.channels.budget.latencies import latency_left, relative_latency
from lightning_compress.channels.budget.runners import AsShipped, as_shipped, eager, measured_in
from lightning_compress.deploy.runtimes import LiteRT, OnnxRuntime
from lightning_compress.pruning import PruningCallback
from lightning_compress.quantization import scales
from lightning_compress.quantization.activations.quantizers import quantizers_of
from lightning_compress.quantization.weights import grids_of
from lightning_compress.schedules import Linear
from tests.support.nets import Module, data
from tests.support.runs import Save, resumes, trainer
from tests.support.toys import Digits, build, fit
from tests.support.toys import Residual as Shortcut

EXAMPLE = torch.zeros(1, 1, 8, 8)
LAYERS = {"net.stem.weight", "net.conv1.weight", "net.conv2.weight", "net.head.weight"}


class Runtime:
    """Notes the grids and quantizers of the models that it is given; their latency is the number of parameters."""

    def __init__(self, monkeypatch):
        self.grids, self.places, self.widths = [], [], []
        monkeypatch.setattr(
            "lightning_compress.channels.budget.latencies.time_ratio", lambda run, other: run() / other()
        )

    def __repr__(self):
        return "Runtime()"

    def __call__(self, module, example):
        assert not module.training
        grids = grids_of(module)
        for name, grid in grids.items():
            weight = module.get_parameter(name)
            assert (grid.rows, grid.count_off(weight)) == (len(weight), 0)
        self.grids.append(set(grids))
        self.places.append(set(quantizers_of(module)))
        self.widths.append(len(module.net.conv1.weight))
        return lambda: sum(parameter.numel() for parameter in module.parameters())


def pruning(runtime, **settings):
    settings = {"latency": 0.5, "round_to": 1, "every_n_steps": 2, "schedule": Linear(0.1, 0.5), **settings}
    return ChannelPruningCallback(runtime=runtime, **settings)


@pytest.mark.parametrize("remove", [True, False])
@pytest.mark.parametrize("first", [True, False], ids=["pruning first", "quantization first"])
def test_copies_at_the_start_and_at_the_end_are_quantized_as_the_trained_model(first, remove, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    runtime, module = Runtime(monkeypatch), Module()
    callbacks = [pruning(runtime, remove=remove), QATCallback(every_n_steps=2)]
    trainer(*(callbacks if first else callbacks[::-1])).fit(module, data())
    assert set(grids_of(module)) == LAYERS
    assert all(grids == LAYERS for grids in runtime.grids)
    assert all(places == set(quantizers_of(module)) for places in runtime.places)
    dense, narrow = Module().net.conv1.weight, runtime.widths[-2]
    assert runtime.widths[1::2] == [len(dense)] * (len(runtime.widths) // 2)  # by turns with the dense one
    assert narrow < len(dense)
    assert len(module.net.conv1.weight) == (narrow if remove else len(dense))
    assert 0.3 < callbacks[0].report()["latency"] <= 0.5
    assert "latency in Runtime(), quantized by QATCallback" in " ".join(caplog.text.split())


def test_the_model_in_the_trainer_stays_as_it_is(monkeypatch):
    module, quantization = Module(), QATCallback()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    runner = as_shipped(Runtime(monkeypatch), [quantization])
    relative_latency(module, Module(), EXAMPLE, runner)
    assert not grids_of(module)
    assert not quantizers_of(module)
    assert not quantization.targets
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_budget_measures_them_too(monkeypatch):
    runtime, module = Runtime(monkeypatch), Module()
    budget = CompressionBudget(latency=0.6, runtime=runtime, round_to=1, schedule=Linear(0.1, 0.5))
    trainer(budget, QATCallback(exclude=["net.head.weight"])).fit(module, data())
    assert all(grids == LAYERS - {"net.head.weight"} for grids in runtime.grids)
    assert budget.report()["latency"] <= 0.6


def test_two_callbacks_and_weights_alone(monkeypatch):
    runtime = Runtime(monkeypatch)
    company = [
        QATCallback(exclude=["net.head.weight"], activation_bits=None),
        BinarizationCallback(include=["net.head.weight"]),
        PruningCallback(0.5),
    ]
    runner = as_shipped(runtime, company)
    assert isinstance(runner, AsShipped)
    assert runner.methods == (company[0], company[1])
    runner(Module().eval(), EXAMPLE)
    assert runtime.grids == [LAYERS]
    assert runtime.places == [set()]


def test_without_quantization_models_run_as_they_are():
    assert as_shipped(eager, [PruningCallback(0.5)]) is eager


def test_pytorch_measures_floats_and_says_so(monkeypatch, caplog):
    """Also at the end, where the trained model rounds its activations."""
    caplog.set_level(logging.INFO)
    runtime = Runtime(monkeypatch)
    monkeypatch.setattr("lightning_compress.channels.budget.runners.eager", runtime)
    module = Module()
    trainer(pruning(runtime), QATCallback(every_n_steps=2)).fit(module, data())
    assert set(grids_of(module)) == LAYERS
    assert quantizers_of(module)
    assert not any(runtime.grids)
    assert not any(runtime.places)
    assert len(runtime.grids) >= 6
    assert "PyTorch, in float: it has no integer kernels for the layers of QATCallback" in " ".join(caplog.text.split())


def test_the_plan_measures_as_fit_does(monkeypatch):
    runtime = Runtime(monkeypatch)
    planned = plan(Module(), [pruning(runtime), QATCallback()], EXAMPLE)
    assert runtime.grids
    assert all(grids == LAYERS for grids in runtime.grids)
    assert "quantized by QATCallback" in planned.methods[0].text


@resumes
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")
def test_a_resumed_run_keeps_its_macs_and_measures_the_end(monkeypatch, tmp_path):
    runtime = Runtime(monkeypatch)
    whole = pruning(runtime)
    trainer(whole, QATCallback(every_n_steps=2), Save(tmp_path, [3])).fit(Module(), data())
    runtime.grids.clear()
    resumed = pruning(runtime)
    trainer(resumed, QATCallback(every_n_steps=2)).fit(Module(), data(), ckpt_path=tmp_path / "step=3.ckpt")
    assert runtime.grids == [LAYERS, LAYERS]
    assert resumed.metrics() == whole.metrics()


@pytest.fixture
def loaded(monkeypatch):
    """The operators of each file that ONNX Runtime loads."""
    found, load = [], OnnxRuntime.load

    def counted(self, path):
        found.append(self.operators(path))
        return load(self, path)

    monkeypatch.setattr(OnnxRuntime, "load", counted)
    return found


@pytest.mark.parametrize(("kind", "layers"), [(Digits, 4), (Shortcut, 6)], ids=["plain", "zero branch"])
def test_onnx_runtime_computes_the_copies_in_integers(kind, layers, loaded):
    """An input of zeros gives the first layer a range without width, in whose unit no bias fits into 32 bits."""
    module = build(kind=kind)
    nn.init.constant_(module.net[0].bias, 100.0)
    if kind is Shortcut:
        nn.init.zeros_(module.net[2].norm2.weight)
    as_shipped(OnnxRuntime(), [QATCallback()])(module.eval(), EXAMPLE)()
    assert (loaded[0].layers, loaded[0].floating) == (layers, ())


def test_the_dense_reference_of_a_trained_model_is_integer_too(loaded):
    """Its weights are gone: what is left of them are zeros."""
    module, quantization = build(), QATCallback(every_n_steps=3)
    cut = ChannelPruningCallback(0.5, round_to=4, every_n_steps=3, schedule=Linear(0.1, 0.5))
    fit(module, cut, quantization)
    assert latency_left(module, EXAMPLE, None, as_shipped(OnnxRuntime(), [quantization])) > 0
    assert {(file.layers, file.floating) for file in loaded} == {(4, ())}


def test_a_grid_that_the_runtime_does_not_take_is_refused_before_training():
    message = r"need a model that runs in the runtime of the budget as QATCallback quantizes it, got .*from LiteRT\("
    with pytest.raises(ValueError, match=message):
        fit(build(), pruning(LiteRT()), QATCallback(scale=scales.minmax))


def test_other_budgets_name_no_runtime():
    assert measured_in(pruning(eager, latency=None, macs=0.5).budget, eager) == ""


@pytest.mark.parametrize("split", [True, False])
def test_layers_that_will_be_split_are_named(split, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    low_rank = LowRankCallback(0.5, include=["net.head.weight"], split=split, schedule=Linear(0.1, 0.5))
    trainer(pruning(Runtime(monkeypatch), include=["net.conv1.weight"]), low_rank).fit(Module(), data())
    plan_text = " ".join(caplog.text.split())
    assert ("latency in Runtime(), with the layers whole that LowRankCallback will split" in plan_text) == split
