from types import SimpleNamespace

import torch
from torch import nn

from lightning_compress.channels.budget.latencies import relative_latency


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
