"""What a user who is new here would write is refused at once, with what to write instead."""

import re
from functools import partial
from importlib import import_module

import pytest
import torch
from torch import nn

from lightning_compress import (
    NM,
    BinarizationCallback,
    ChannelPruningCallback,
    CompressionBudget,
    DistillationCallback,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
    channels,
    export,
    freeze,
    load_compressed,
    pruning,
)
from lightning_compress.arguments import check_criterion
from lightning_compress.arguments.homes import HOMES
from lightning_compress.distillation import Term, losses
from lightning_compress.quantization import PerChannel
from lightning_compress.schedules import Constant, Cubic
from lightning_compress.search import sensitivity
from tests.support.toys import build, fit


@pytest.mark.parametrize(
    ("callback", "argument", "value"),
    [
        (PruningCallback, "criterion", "magnitude"),
        (PruningCallback, "pattern", "2:4"),
        (PruningCallback, "schedule", 0.5),
        (ChannelPruningCallback, "criterion", "taylor"),
        (WeightSharingCallback, "init", "plus_plus"),
        (WeightSharingCallback, "gradient", "mean"),
        (QATCallback, "granularity", "channel"),
        (QATCallback, "scale", "absmax"),
        (QATCallback, "observer", "minmax"),
        (BinarizationCallback, "schedule", "linear"),
        (Term, "loss", "kd"),
        (partial(Term, losses.mse), "schedule", "linear"),
    ],
)
def test_code_is_not_chosen_by_its_name(callback, argument, value):
    with pytest.raises(TypeError, match=f"need {argument} as a function or an object, got {value!r}: import it and"):
        callback(**{argument: value})


@pytest.mark.parametrize(
    ("refused", "hint"),
    [
        (lambda: PruningCallback(pattern="2:4"), ("pattern=NM(2, 4)", "pruning.patterns", "NM")),
        (lambda: PruningCallback(criterion="Taylor"), ("criterion=taylor", "pruning.criteria", "taylor")),
        (lambda: ChannelPruningCallback(criterion="l1"), ("criterion=magnitude", "channels.criteria", "magnitude")),
        (lambda: PruningCallback(schedule="cubic"), ("schedule=Cubic()", "schedules", "Cubic")),
        (lambda: QATCallback(profile="mobile"), ("profile=Mobile()", "quantization.profiles", "Mobile")),
        (
            lambda: QATCallback(granularity="per-tensor"),
            ("granularity=PerTensor()", "quantization.granularities", "PerTensor"),
        ),
        (
            lambda: CompressionBudget(latency=0.5, runtime="ort"),
            ("runtime=OnnxRuntime()", "deploy.runtimes", "OnnxRuntime"),
        ),
        (lambda: Term("mse"), ("loss=mse", "distillation.losses", "mse")),
        (
            lambda: sensitivity(nn.Linear(2, 2), [], methods=[PruningCallback(0.5)], metric="val_acc"),
            ("metric=Logged('val_acc')", "search", "Logged"),
        ),
        (
            lambda: sensitivity(nn.Linear(2, 2), [], methods=[PruningCallback(0.5)], loss="mse"),
            ("loss=training_loss", "search", "training_loss"),
        ),
    ],
)
def test_the_import_that_helps_is_named(refused, hint):
    value, home, name = hint
    said = f", {value} after 'from lightning_compress.{home} import {name}'"
    with pytest.raises(TypeError, match=f"{re.escape(said)}$"):
        refused()


@pytest.mark.parametrize(("home", "value"), HOMES.values())
def test_the_values_of_hints_can_be_imported(home, value):
    assert value.partition("(")[0] in import_module(f"lightning_compress.{home}").__all__


@pytest.mark.parametrize(
    ("callback", "argument", "value"),
    [
        (PruningCallback, "schedule", Cubic),
        (PruningCallback, "pattern", NM),
        (QATCallback, "granularity", PerChannel),
        (Term, "loss", losses.SoftTargets),
    ],
)
def test_a_class_is_not_an_object(callback, argument, value):
    with pytest.raises(TypeError, match=rf"need {argument} as an object, got the class {value.__name__}: write "):
        callback(**{argument: value})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every_n_steps": 2.0}, TypeError, "need every_n_steps as an integer, got 2.0"),
        ({"every_n_steps": "2"}, TypeError, "need every_n_steps as an integer, got '2'"),
        ({"every_n_steps": 0}, ValueError, "need every_n_steps >= 1, got every_n_steps=0"),
        ({"include": "fc"}, TypeError, r"need include as a sequence of patterns, got 'fc': write \('fc',\)"),
        ({"exclude": 3}, TypeError, "need exclude as a sequence of patterns, got 3"),
        ({"exclude": (nn.Linear,)}, TypeError, "need exclude as a sequence of patterns, got .*Linear"),
        (
            {"schedule": lambda t: t / 2},
            ValueError,
            r"that ends at 1, got schedule=<function",
        ),
    ],
)
@pytest.mark.parametrize("callback", [PruningCallback, QATCallback, WeightSharingCallback, ChannelPruningCallback])
def test_arguments_that_all_methods_share(callback, arguments, error, message):
    with pytest.raises(error, match=message):
        callback(**arguments)


def test_a_number_is_no_nan():
    with pytest.raises(ValueError, match="need sparsity as a number, got nan"):
        PruningCallback(float("nan"))


def _weights_criterion(weight, gradient):
    return weight


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (
            pruning.criteria.taylor,
            r"need criterion\(members\), as those of lightning_compress\.channels\.criteria, "
            r"got pruning\.criteria\.taylor\(weight, gradient\): use channels\.criteria\.taylor$",
        ),
        (pruning.criteria.movement, r"got pruning\.criteria\.movement\(weight, gradient\)$"),
        (partial(pruning.criteria.random, seed=1), r"got pruning\.criteria\.random\(weight, evidence, seed\)$"),
        (_weights_criterion, r"got _weights_criterion\(weight, gradient\)$"),
    ],
)
def test_a_criterion_of_another_method_is_refused(criterion, message):
    with pytest.raises(TypeError, match=message):
        check_criterion(criterion, channels.criteria, "members")


@pytest.mark.parametrize("criterion", [channels.criteria.taylor, len, lambda members, power=2: members, max])
def test_a_criterion_with_the_right_arguments_passes(criterion):
    check_criterion(criterion, channels.criteria, "members")


def test_losses_are_a_list():
    with pytest.raises(
        TypeError, match=r"need losses as a list of losses or terms, got Term\(.*: write \[Term\(loss=mse\)\]"
    ):
        DistillationCallback(nn.Identity(), losses=Term(losses.mse))


@pytest.mark.parametrize(
    "criterion", [lambda weight, gradient: weight.abs().mean(), lambda weight, gradient: weight[0]]
)
def test_a_criterion_scores_every_weight(criterion):
    with pytest.raises(
        ValueError, match=r"scores of the weight's shape, got \(.*\) for 'net.0.weight' of \(8, 1, 3, 3\)"
    ):
        fit(build(), PruningCallback(0.5, criterion=criterion, schedule=Constant()))


def test_a_criterion_scores_every_channel():
    with pytest.raises(ValueError, match=r"a score for each of the \d+ units of 'net\..*', got scores of shape \(\)"):
        fit(build(), ChannelPruningCallback(0.5, criterion=lambda members: torch.tensor(1.0), round_to=4))


def test_what_is_no_module_is_not_exported(tmp_path):
    state = build().state_dict()
    with pytest.raises(TypeError, match=r"got OrderedDict: write a state dict by archive\.save_archive"):
        export(state, tmp_path / "m.lcz")
    with pytest.raises(TypeError, match="need module as a torch.nn.Module, got str"):
        freeze("last.ckpt", torch.zeros(1))
    with pytest.raises(TypeError, match="need the class of the module as cls, got a Digits"):
        load_compressed(build(), tmp_path / "last.ckpt")
