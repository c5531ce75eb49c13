from types import SimpleNamespace

import torch
from torch import nn

from lightning_compress.channels.budget.costs import costs_of
from lightning_compress.channels.budget.latencies import macs_within_latency, relative_latency
from lightning_compress.channels.dependencies.removable import find_removable


def test_models_take_turns_and_one_slow_round_does_not_count(monkeypatch):
    timed = []

    class Clock:
        """A second for each layer; the third time that a model is timed, the machine is busy."""

        def __init__(self, statement, **settings):
            self.statement, self.globals, self.calls = statement, settings["globals"], 0

        def timeit(self, runs):
            exec(self.statement, self.globals)
            self.calls += 1
            layers = len(self.globals["run"].args[0])
            timed.append(layers)
            return SimpleNamespace(mean=layers * (100.0 if self.calls == 3 else 1.0))

    monkeypatch.setattr("lightning_compress.timing.Timer", Clock)
    layers = [nn.Linear(4, 4) for _ in range(16)]
    short, long = nn.Sequential(*layers[:2]), nn.Sequential(*layers)
    assert relative_latency(short, long, torch.zeros(3, 4)) == 2 / 16
    assert not short.training
    assert timed[2:] == [2, 16, 16, 2] * 4 + [2, 16]


def weights(model):
    return sum(layer.weight.numel() for layer in model)


def test_a_limit_is_aimed_at_with_a_margin_of_three_percent(monkeypatch):
    """The latency of these models is the number of their weights, which is that of their MACs."""
    monkeypatch.setattr(
        "lightning_compress.channels.budget.latencies.relative_latency",
        lambda module, reference, example, runner: weights(module) / weights(reference),
    )
    module, example = nn.Sequential(nn.Linear(8, 100), nn.Linear(100, 4)), torch.zeros(2, 8)
    found = find_removable(module, example)
    fraction = macs_within_latency(module, example, found.groups, costs_of(module, found.prices), 0.5, round_to=1)
    assert 0.97 * 0.5 - 1 / 64 - 0.01 < fraction <= 0.97 * 0.5 + 0.01  # six halvings, steps of a channel
