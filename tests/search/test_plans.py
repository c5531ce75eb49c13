"""A plan predicts the run that follows it, changes nothing, and says what it cannot know."""

import copy
import json
import logging
import random
import threading

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from lightning_compress import (
    ChannelPruningCallback,
    CompressionBudget,
    CompressionReport,
    LowRankCallback,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
    export,
    plan,
)
from lightning_compress.macs import count_macs
from lightning_compress.pruning import criteria
from lightning_compress.quantization import MixedBits
from lightning_compress.report.measures.profiles import profile
from lightning_compress.schedules import Constant
from tests.support.cases import cases
from tests.support.promises import shipped
from tests.support.runs import same, state
from tests.support.toys import build, fit

EXAMPLE = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
WITHOUT_REPORT = cases(lambda case: not any(isinstance(one, CompressionReport) for one in case.callbacks()))
QUANTIZED = 0.05  # fraction of weights that rounding may make zero, besides those that are masked


@WITHOUT_REPORT
def test_a_plan_predicts_the_run(case, tmp_path):
    callbacks, module = case.callbacks(), build(kind=case.kind)
    planned = plan(module, callbacks, EXAMPLE).after
    fit(module, *callbacks)
    real = profile(module)
    assert [(layer.name, layer.shape, layer.bits) for layer in planned.layers] == [
        (layer.name, layer.shape, layer.bits) for layer in real.layers
    ]
    assert planned.macs.total == count_macs(shipped(module), EXAMPLE).total
    rounds = [one for one in callbacks if isinstance(one, QATCallback)]
    few = any(isinstance(one.weight_bits, MixedBits) for one in rounds)  # of two bits half are zeros
    within = QUANTIZED * (1 + few) if rounds else 1e-12
    assert planned.sparsity == pytest.approx(real.sparsity, abs=within)
    file = export(module, tmp_path / "model.lcz")
    assert planned.archive_bytes == pytest.approx(file.stat().st_size, rel=0.06)


TRAINED = {
    "zeros": lambda: [PruningCallback(0.9, schedule=Constant())],
    "4 bits": lambda: [QATCallback(4, schedule=Constant())],
    "2 bits": lambda: [QATCallback(2, activation_bits=None, schedule=Constant())],
    "values": lambda: [WeightSharingCallback(8, schedule=Constant())],
    "zeros of 8 bits": lambda: [PruningCallback(0.9, schedule=Constant()), QATCallback(schedule=Constant())],
}


@pytest.fixture(scope="module")
def trained():
    """A dense model of some epochs."""
    module = build()
    fit(module, max_epochs=10)
    return module


@pytest.mark.parametrize("make", TRAINED.values(), ids=TRAINED.keys())
def test_a_plan_of_a_trained_module_is_near(make, trained, tmp_path):
    callbacks, module = make(), copy.deepcopy(trained)
    planned = plan(module, callbacks, EXAMPLE).after.archive_bytes
    fit(module, *callbacks)
    assert planned == pytest.approx(export(module, tmp_path / "model.lcz").stat().st_size, rel=0.04)


def test_the_numbers_of_a_layer_by_hand():
    layer = nn.Linear(8, 4)
    planned = plan(nn.Sequential(layer), [PruningCallback(0.75), QATCallback(4, activation_bits=None)])
    (weight, bias) = planned.layers
    kept = layer.weight.abs() >= layer.weight.abs().flatten().topk(8).values[-1]
    scale = (layer.weight * kept).abs().amax(1, keepdim=True) / 7
    rounded = torch.where(kept, (layer.weight / scale).round() * scale, 0)
    assert (weight.methods, weight.reason, bias.methods, bias.reason) == ((1, 2), "", (), "bias or vector")
    assert weight.after.nonzeros == int(rounded.count_nonzero())
    assert weight.after.distinct == len(rounded.unique())
    assert (weight.before.bits, weight.after.bits, bias.after.bits) == (32, 4, 32)
    assert planned.after.macs is None


def randomness():
    return torch.get_rng_state(), random.getstate(), str(np.random.get_state())


@WITHOUT_REPORT
def test_a_plan_changes_nothing(case):
    callbacks, module = case.callbacks(), build(kind=case.kind)
    module.net[4].eval()
    modes, weights = [part.training for part in module.modules()], state(module)
    attributes = [dict(vars(one)) for one in callbacks]
    held, keys = {key: id(value) for key, value in vars(module).items()}, list(module.state_dict())
    torch.manual_seed(1)
    before = randomness()
    plan(module, callbacks, EXAMPLE)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == randomness()[1:]
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in state(module).items())
    assert {key: id(value) for key, value in vars(module).items()} == held
    assert list(module.state_dict()) == keys
    assert all(not part._forward_pre_hooks and not part._forward_hooks for part in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())
    for one, kept in zip(callbacks, attributes, strict=True):
        assert vars(one).keys() == kept.keys()
        assert all(vars(one)[key] is value for key, value in kept.items())


def test_the_run_after_a_plan_is_that_without_one():
    runs = []
    for planned in (True, False):
        callbacks, module = [PruningCallback(0.8, criterion=criteria.wanda), QATCallback()], build()
        if planned:
            plan(module, callbacks, EXAMPLE)
        fit(module, *callbacks)
        runs.append(module)
    assert same(*runs)


def test_the_texts_are_those_that_fit_prints(caplog):
    callbacks, module = [PruningCallback(0.9, exclude=("net.0",)), QATCallback()], build()
    planned = plan(module, callbacks, EXAMPLE)
    with caplog.at_level(logging.INFO):
        fit(module, *callbacks, max_epochs=1)
    printed = [record.getMessage() for record in caplog.records]
    assert all(method.text in printed for method in planned.methods)
    assert planned.methods[0].left_alone["net.0.weight"] == "excluded"


def test_a_table_of_eighty_columns():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.an_encoder_with_a_long_name = nn.ModuleDict(
                {f"a_layer_named_{i}": nn.Linear(500, 500) for i in range(3)}
            )

        def forward(self, x):
            for layer in self.an_encoder_with_a_long_name.values():
                x = layer(x)
            return x

    callbacks = [PruningCallback(0.9), WeightSharingCallback(16), QATCallback()]
    planned = plan(Deep(), callbacks, torch.zeros(1, 500))
    lines = str(planned).splitlines()
    assert max(map(len, lines)) <= 80
    assert repr(planned) == str(planned)
    shown = [line.split()[0] for line in lines if "1 2 3" in line]
    assert shown == [f"…a_layer_named_{i}.weight" for i in range(3)]
    assert lines[-1].startswith("total, with buffers")
    page = planned._repr_html_()
    assert page.count("<tr>") == 1 + len(planned.layers) + 1
    assert "an_encoder_with_a_long_name.a_layer_named_0.weight" in page


def test_html_escapes_names():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module("<b>", nn.Linear(4, 4))

    assert "<b>.weight" not in plan(Odd(), [PruningCallback(0.5)])._repr_html_()


def test_the_dictionary_is_json():
    found = json.loads(json.dumps(plan(build(), [LowRankCallback()], EXAMPLE).to_dict()))
    assert found["totals"]["before"]["parameters"] > found["totals"]["after"]["parameters"]
    by_name = {layer["name"]: layer for layer in found["layers"]}
    assert by_name["net.9.weight"]["after"] is None
    assert by_name["net.9.first.weight"]["before"] is None
    assert found["methods"][0]["callback"] == "LowRankCallback(parameters=0.5)"


def test_a_criterion_that_reads_gradients_says_that_training_decides():
    planned = plan(build(), [PruningCallback(0.9, criterion=criteria.movement)])
    assert "its criterion reads gradients, which training will give" in planned.methods[0].notes[0]
    by_magnitude = plan(build(), [PruningCallback(0.9)])
    assert planned.after.layers == by_magnitude.after.layers


def test_a_criterion_that_reads_inputs_needs_an_example():
    callbacks = [PruningCallback(0.9, criterion=criteria.wanda)]
    planned = plan(build(), callbacks)
    assert "pass example_input to predict its part" in planned.methods[0].notes[0]
    assert planned.after.sparsity < 0.01
    assert plan(build(), callbacks, EXAMPLE).after.sparsity == pytest.approx(0.87, abs=0.01)


def test_layers_that_stay_in_float_are_named():
    class Called(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.one(x)

    (method,) = plan(Called(), [QATCallback()], torch.rand(2, 4)).methods
    assert method.notes[-1] == "computed in float, since no quantizer reaches them: other"
    (method,) = plan(Called(), [QATCallback()]).methods
    assert method.notes == ("pass example_input to place the quantizers of activations",)


def test_removed_channels_need_no_argument_if_a_callback_has_the_example():
    planned = plan(build(), [ChannelPruningCallback(0.5, round_to=4, example_input=EXAMPLE)])
    assert planned.after.macs.total < 0.51 * planned.before.macs.total


def test_without_methods_nothing_is_compressed():
    planned = plan(build(), [L.pytorch.callbacks.Timer()])
    assert planned.before == planned.after
    assert "no callback compresses weights" in str(planned)
    assert {layer.reason for layer in planned.layers} == {"no callback compresses weights"}


def test_a_module_that_was_trained_and_its_callbacks_are_planned_again():
    callbacks, module = [PruningCallback(0.5), QATCallback()], build()
    fit(module, *callbacks)
    weights, targets = state(module), dict(callbacks[0].targets)
    plan(module, callbacks, EXAMPLE)
    assert all(torch.equal(value, weights[name]) for name, value in state(module).items())
    assert dict(callbacks[0].targets) == targets


class Twice(WeightSharingCallback):
    """Runs in the order of another method."""


@pytest.mark.parametrize(
    ("callbacks", "error", "said"),
    [
        ([PruningCallback], TypeError, "need callbacks as objects, got the class PruningCallback"),
        (PruningCallback(0.5), TypeError, r"need callbacks as a list, got PruningCallback: write \[PruningCallback"),
        ([ChannelPruningCallback(0.5)], ValueError, "need example_input to find the channels of the module, got none"),
        ([WeightSharingCallback(8), Twice(4)], ValueError, "need callbacks with different places in the order"),
        ([PruningCallback(0.5, include=("head",))], ValueError, "need include patterns that match a parameter"),
        ([LowRankCallback(), PruningCallback(0.5)], ValueError, "need LowRankCallback alone on a weight"),
    ],
    ids=["class", "no list", "no example", "conflict", "pattern", "alone"],
)
def test_what_fit_refuses_a_plan_refuses(callbacks, error, said):
    module = build()
    weights = state(module)
    with pytest.raises(error, match=said):
        plan(module, callbacks)
    assert all(torch.equal(value, weights[name]) for name, value in state(module).items())


def test_an_example_that_forward_does_not_take_is_refused():
    with pytest.raises(ValueError, match=r"need an example input that Digits.forward takes, got \(2, 3\)"):
        plan(build(), [PruningCallback(0.5)], torch.zeros(2, 3))
    with pytest.raises(TypeError, match="need module as a torch.nn.Module, got dict"):
        plan({}, [PruningCallback(0.5)])


def test_a_module_that_cannot_be_copied_is_refused():
    module = build()
    module.lock = threading.Lock()
    with pytest.raises(ValueError, match="need a module that can be copied, got Digits, which raises TypeError"):
        plan(module, [PruningCallback(0.5)])


def test_compiled_modules():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    for compiled in (torch.compile(net, backend="eager"), torch.compile(build(), backend="eager")):
        example = torch.rand(2, 4) if compiled._modules.get("_orig_mod") is net else EXAMPLE
        assert plan(compiled, [PruningCallback(0.5)], example).after.sparsity > 0.3


def test_the_size_of_a_budget_of_a_metric_is_found_in_training():
    planned = plan(build(), [CompressionBudget(max_drop=0.01)], EXAMPLE)
    assert planned.methods[0].notes == ("the size is found in training, by the metric: no compression is predicted",)
    assert planned.after.archive_bytes == planned.before.archive_bytes


def test_what_a_budget_leaves_out_is_named():
    module = nn.Sequential(nn.Linear(8, 40), nn.Linear(40, 30), nn.Linear(30, 4))
    for include, largest in ((["0"], "1.weight, 2.weight, 0.bias and 2 more"), (["*"], "0.bias, 1.bias, 2.bias")):
        with pytest.raises(ValueError, match=rf"bytes are what is not compressed here, {largest}, and the rest"):
            plan(module, [CompressionBudget(bytes=100, include=include)], torch.rand(2, 8))


def test_a_plan_refuses_the_budgets_that_fit_refuses():
    with pytest.raises(ValueError, match="need bytes >= .* got bytes=100"):
        plan(build(), [CompressionBudget(bytes=100)], EXAMPLE)
    with pytest.raises(ValueError, match="need bytes below .* got bytes=100,000"):
        plan(build(), [CompressionBudget(bytes=100_000)], EXAMPLE)


def test_the_plan_of_a_budget_says_when_it_chooses(caplog):
    """Nothing is trained yet, so nothing is chosen."""
    with caplog.at_level("INFO"):
        planned = plan(build(), [CompressionBudget(bytes=3000)], EXAMPLE)
    (note,) = planned.methods[0].notes
    assert note.startswith("nothing is chosen yet: training chooses the zeros when the schedule begins, and the values")
    assert "chose" not in caplog.text
