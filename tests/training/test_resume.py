"""A run is resumed with the arguments of its checkpoint; others are refused before training."""

import pytest

from lightning_compress import (
    NM,
    BinarizationCallback,
    ChannelPruningCallback,
    LowRankCallback,
    PerTensor,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
)
from lightning_compress.pruning import criteria
from lightning_compress.quantization import observers, scales
from lightning_compress.schedules import Constant, Cubic, Linear
from tests.support.runs import Save, resumes
from tests.support.toys import build, fit

EARLY = {"schedule": Linear(0.0, 0.2), "every_n_steps": 2}


class Rule(PruningCallback):
    """A subclass without arguments of its own."""


class Powers:
    """A criterion with an address in its ``repr``: another one in every process."""

    def __init__(self, power):
        self.power = power

    def __call__(self, weight, evidence):
        return weight.abs() ** self.power


@resumes
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (PruningCallback(0.5, **EARLY), PruningCallback(0.8, **EARLY), "got sparsity=0.8 where it has sparsity=0.5"),
        (
            PruningCallback(0.5, **EARLY),
            PruningCallback(pattern=NM(2, 4), include=("*",), **EARLY),
            r"got pattern=NM\(.* where it has pattern=Unstructured\(",
        ),
        (PruningCallback(0.5, **EARLY), PruningCallback(0.5, scope="layer", **EARLY), "got scope='layer'"),
        (PruningCallback(0.5, **EARLY), PruningCallback(0.5, regrow=True, **EARLY), "got regrow=True"),
        (
            Rule(0.5, **EARLY),
            Rule(0.5, criterion=criteria.taylor, **EARLY),
            r"resume Rule, got criterion=\S*taylor where it has criterion=\S*magnitude",
        ),
        (
            PruningCallback(0.5, include=("net.9", "net.11"), **EARLY),
            PruningCallback(0.5, include=("net.9",), **EARLY),
            r"need the include and exclude patterns of the checkpoint .*'include': \('net.9', 'net.11'\)",
        ),
        (QATCallback(8), QATCallback(4, activation_bits=4), "got weight_bits=4, activation_bits=4 where it has weight"),
        (QATCallback(8), QATCallback(8, activation_bits=None), "got activation_bits=None where it has activation_bits"),
        (QATCallback(8), QATCallback(8, granularity=PerTensor()), r"got granularity=PerTensor\(\)"),
        (QATCallback(8), QATCallback(8, scale=scales.mse), r"got scale=\S*mse where it has scale=\S*absmax"),
        (
            ChannelPruningCallback(0.7, round_to=2, **EARLY),
            ChannelPruningCallback(0.4, round_to=2, **EARLY),
            "got macs=0.4 where it has macs=0.7",
        ),
        (
            ChannelPruningCallback(0.7, round_to=2, **EARLY),
            ChannelPruningCallback(parameters=0.7, round_to=2, **EARLY),
            "got macs=None, parameters=0.7 where it has macs=0.7, parameters=None",
        ),
        (WeightSharingCallback(16, **EARLY), WeightSharingCallback(8, **EARLY), "got clusters=8 where it has clusters"),
        (LowRankCallback(0.5, **EARLY), LowRankCallback(energy=0.9, **EARLY), "got parameters=None, energy=0.9 where"),
        (
            [PruningCallback(0.5, include=("net.9",), **EARLY), BinarizationCallback()],
            [PruningCallback(0.6, include=("net.9",), **EARLY), BinarizationCallback()],
            "got sparsity=0.6",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:every weight of")
def test_arguments_that_ask_for_something_else_are_refused_before_training(before, after, message, tmp_path):
    before, after = (one if isinstance(one, list) else [one] for one in (before, after))
    fit(build(), *before, Save(tmp_path, [20]), max_epochs=2)
    with pytest.raises(ValueError, match=f"(?s){message}.*with load_compressed, and fit without ckpt_path"):
        fit(build(), *after, ckpt_path=tmp_path / "step=20.ckpt")


@resumes
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            PruningCallback(0.5, schedule=Cubic(0.0, 0.5), every_n_steps=2),
            PruningCallback(0.5, schedule=Linear(0.1, 0.9), every_n_steps=3, gradient_scale=2.0),
        ),
        (QATCallback(8), QATCallback(8, observer=observers.mse, decay=0.5, freeze_ranges_at=0.9, range_lr=0.01)),
        (PruningCallback(0.5, criterion=Powers(2)), PruningCallback(0.5, criterion=Powers(2))),
        (PruningCallback(0.5, **EARLY), [PruningCallback(0.5, **EARLY), WeightSharingCallback(8, schedule=Constant())]),
        (
            PruningCallback(0.5, include=("net.9",), **EARLY),
            [PruningCallback(0.5, include=("net.9",), **EARLY), PruningCallback(0.8, include=("net.11",), **EARLY)],
        ),
    ],
    ids=["schedule", "ranges", "object", "another method", "another rule"],
)
def test_arguments_that_say_how_to_train_may_change(before, after, tmp_path):
    fit(build(), before, Save(tmp_path, [20]), max_epochs=2)
    after = after if isinstance(after, list) else [after]
    fit(build(), *after, ckpt_path=tmp_path / "step=20.ckpt")
    assert all(callback.strength == 1 for callback in after)
