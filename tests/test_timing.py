from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_compress.timing import Latency, measure_latencies, time_in_turns, time_ratio


def test_latencies_are_taken_in_turns():
    order = []

    class Noted(nn.Linear):
        def forward(self, x):
            if order[-1:] != [self.bias.numel()]:
                order.append(self.bias.numel())
            return super().forward(x)

    first, second = measure_latencies([Noted(4, 1), Noted(4, 2)], torch.ones(1, 4))
    assert order[:6] == [1, 2, 1, 2, 1, 2]
    for latency in (first, second):
        assert 0 < latency.lower <= latency.median <= latency.upper
        assert latency.device == "cpu"


def test_a_rhythm_of_the_machine_slows_both_alike(monkeypatch):
    turns = 0

    class Clock:
        """Every second turn takes twice the time."""

        def __init__(self, *_, **__):
            pass

        def blocked_autorange(self, **_):
            nonlocal turns
            turns += 1
            return SimpleNamespace(times=[1.0 + turns % 2] * 5)

    monkeypatch.setattr("lightning_compress.timing.Timer", Clock)
    first, second = time_in_turns([lambda: None, lambda: None], "cpu")
    assert first == second


def test_latencies_differ_where_the_middle_halves_lie_apart():
    slow, fast, wide = Latency(3.0, 2.5, 3.5, "cpu"), Latency(2.0, 1.5, 2.4, "cpu"), Latency(2.0, 1.0, 2.6, "cpu")
    assert slow.differs(fast)
    assert fast.differs(slow)
    assert not slow.differs(wide)
    assert not slow.differs(slow)


class Busy:
    """A clock in a machine that is a hundred times slower for one turn; a turn begins and ends with a look at it.

    Every turn that counts comes after one to warm up.
    """

    def __init__(self, slow):
        self.now, self.looks, self.slow, self.order = 0.0, 0, slow, []

    def __call__(self):
        self.looks += 1
        return self.now

    def work(self, name, seconds):
        def run():
            if self.looks % 2:
                self.order.append((self.looks // 2, name))
            self.now += seconds * (100 if self.looks // 2 == self.slow else 1)

        return run


@pytest.mark.parametrize("slow", range(16))
def test_a_ratio_is_a_median_of_turns(slow):
    clock = Busy(slow)
    assert time_ratio(clock.work("a", 0.5), clock.work("b", 2.0), rounds=3, clock=clock) == 0.25
    assert "".join(name for _, name in sorted(set(clock.order))[4::2]) == "abbaab"


def test_short_functions_are_repeated_in_a_ratio():
    clock = Busy(slow=None)
    time_ratio(clock.work("a", 0.001), clock.work("b", 0.001), rounds=1, clock=clock)
    assert [clock.order.count((turn, name)) for turn, name in ((5, "a"), (7, "b"))] == [20, 20]
