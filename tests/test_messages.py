"""Messages stay short: a model of a hundred layers is met by every callback, and by errors that list its names."""

import copy
import fcntl
import logging
import os
import pty
import struct
import sys
import termios
import warnings

import pytest
import torch
from torch import nn

from lightning_compress import (
    ChannelPruningCallback,
    CompressionBudget,
    LowRankCallback,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
)
from lightning_compress.distillation import DistillationModule, Term, initialization, losses
from lightning_compress.messages import for_terminal, listed
from lightning_compress.schedules import Constant
from lightning_compress.timing import Latency
from lightning_compress.training import WeightCompression
from lightning_compress.tying import tie
from tests.support.cases import cases
from tests.support.toys import Digits, Manual, build, fit

LAYERS, LONGEST = 100, 300  # 300 layers take three times as long and give the same lines


class Block(nn.Module):
    """A layer beside a shortcut, which keeps a hundred of them trainable."""

    def __init__(self):
        super().__init__()
        self.projection = nn.Linear(32, 32)

    def forward(self, x):
        return x + self.projection(x) / LAYERS


def deep(kind):
    """The class with a hundred layers before its last one."""

    class Deep(kind):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.net[10] = nn.Sequential(*(Block() for _ in range(LAYERS)))

    return Deep


@pytest.fixture(autouse=True)
def instant(monkeypatch):
    """Timing takes no time: a report measures latency, which has its own tests."""
    monkeypatch.setattr(
        "lightning_compress.report.measures.bench.measure_latencies",
        lambda modules, example: [Latency(0.2, 0.1, 2.0, "cpu") for _ in modules],
    )


def too_long(*texts):
    return [line for text in texts for line in str(text).splitlines() if len(line) > LONGEST]


@cases()
def test_the_lines_of_every_callback(case, caplog, capsys):
    callbacks = case.callbacks()
    for budget in (callback for callback in callbacks if isinstance(callback, CompressionBudget)):
        budget.bytes = 40_000  # a hundred layers cannot meet that of the case
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.INFO):
        warnings.simplefilter("always")
        fit(build(kind=deep(case.kind)), *callbacks, max_epochs=1)
    messages = [record.getMessage() for record in caplog.records]
    if any(isinstance(callback, WeightCompression) for callback in callbacks):
        assert any(f"({LAYERS})" in message for message in messages)
    assert too_long(*messages, *(warning.message for warning in warned), *capsys.readouterr()) == []


def two_optimizers():
    fit(build(kind=deep(Manual)), WeightSharingCallback(8, scope="global", schedule=Constant()))


def replaced():
    class Replace(deep(Digits)):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 3:
                for block in self.net[10]:
                    block.projection = nn.Linear(32, 32)

    fit(build(kind=Replace), LowRankCallback(split=False))


def gone():
    class Remove(deep(Digits)):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == 3:
                self.net[10] = nn.ReLU()

    fit(build(kind=Remove), PruningCallback(0.5, schedule=Constant()))


def conflicting():
    fit(build(kind=deep(Digits)), LowRankCallback(), PruningCallback(0.5))


def lazy():
    module = build(kind=deep(Digits))
    module.net[10] = nn.Sequential(*(nn.LazyLinear(32) for _ in range(LAYERS)))
    fit(module, QATCallback())


def taught(**options):
    module, teacher = build(kind=deep(Digits)), copy.deepcopy(build(kind=deep(Digits)).net)
    fit(DistillationModule(module, teacher, **options), max_steps=1)


REFUSALS = {
    "no match": lambda: fit(build(kind=deep(Digits)), PruningCallback(0.5, include=("encoder.*",))),
    "nothing left": lambda: fit(build(kind=deep(Digits)), PruningCallback(0.5, include=("*.bias",))),
    "two optimizers": two_optimizers,
    "replaced": replaced,
    "gone": gone,
    "conflict": conflicting,
    "lazy": lazy,
    "nothing to split": lambda: fit(build(kind=deep(Digits)), LowRankCallback(include=("*.bias",))),
    "out of reach": lambda: fit(
        build(kind=deep(Digits)), ChannelPruningCallback(0.001, round_to=32, example_input=torch.zeros(1, 1, 8, 8))
    ),
    "network": lambda: taught(network="decoder"),
    "layers": lambda: taught(losses=[Term(losses.mse, student_layers="decoder.*")]),
    "pairs": lambda: taught(losses=[Term(losses.mse, student_layers="net.10.*", teacher_layers="0")]),
    "layers that do not run": lambda: taught(
        network="net.0", losses=[Term(losses.mse, student_layers="net.0", teacher_layers="10.*")]
    ),
    "initialize": lambda: taught(initialize={"decoder": "0"}),
    "tie": lambda: tie(build(kind=deep(Digits)), {"decoder": "net.0"}),
}


@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS.keys())
def test_the_lines_of_errors(refused):
    with pytest.raises(ValueError, match="need ") as error:
        refused()
    assert too_long(error.value) == []


def test_the_initialization_of_a_layer_that_is_not_there():
    net = build(kind=deep(Digits)).net
    with pytest.raises(ValueError, match="need initialize to name layers") as error:
        initialization.initialize(net, net, {"0": "decoder"})
    assert too_long(error.value) == []


def test_long_names_fill_no_more_than_a_line():
    names = [f"encoder.{'inner.' * 10}{letter}.weight" for letter in "abcdefgh"]
    assert listed(names) == f"{names[0]}, {names[1]} and 6 more"
    assert listed(["x" * 500]) == "x" * 500


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_a_plan_is_wrapped_to_the_terminal_that_shows_it(columns, monkeypatch):
    terminal, shown = pty.openpty()
    fcntl.ioctl(shown, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    text = "PruningCallback: 50 % zeros\n  12 weights in 9 tensors: " + ", ".join(f"block{n}.weight" for n in range(9))
    with os.fdopen(shown, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        lines = for_terminal(text).splitlines()
    os.close(terminal)
    assert max(map(len, lines)) <= columns
    assert " ".join(line.strip() for line in lines) == " ".join(line.strip() for line in text.splitlines())
    assert (len(lines) == 2) == (columns == 200)
    assert all(line.startswith("    ") for line in lines[2:])


def test_a_plan_keeps_its_lines_where_there_is_no_terminal(tmp_path, monkeypatch):
    text = f"PruningCallback\n  {'name, ' * 50}"
    with (tmp_path / "log.txt").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert for_terminal(text) == text
    monkeypatch.setattr(sys, "stderr", None)
    assert for_terminal(text) == text
