"""A weight off its grid stops the run, with numbers: at its end, and on demand after every update."""

import lightning as L
import pytest
import torch

from lightning_compress import PruningCallback
from lightning_compress.quantization import BinarizationCallback, QATCallback, scales
from lightning_compress.schedules import Constant, Linear
from tests.support.classifiers import Classifier, fit


class Nudging(QATCallback):
    """Moves three weights by a quarter of a step."""

    def project_(self, weights):
        super().project_(weights)
        for name, weight in weights.items():
            weight.view(-1)[:3] += 0.25 * self._grids[name].scale[0]


class Refitting(QATCallback):
    """Projects onto other grids than those that a checkpoint carries."""

    def project_(self, weights):
        for weight in weights.values():
            weight.copy_(scales.absmax(weight.abs() + 1, self.weight_bits).project(weight))


class ThreeValued(BinarizationCallback):
    """Halves one weight in each of two channels."""

    def project_(self, weights):
        super().project_(weights)
        for weight in weights.values():
            weight[[1, 4], 2] /= 2


BROKEN = [
    (
        lambda: Nudging(4, activation_bits=None, schedule=Constant()),
        r"need every weight of 'net.1.weight' on its 4-bit"
        r" grid, got 3 of 2048 off it",
    ),
    (lambda: Refitting(8, activation_bits=None, schedule=Constant()), r"on its 8-bit grid, got \d+ of 2048 off it"),
    (
        lambda: ThreeValued(schedule=Constant()),
        "need the two values -a and \\+a in every channel of 'net.1.weight', got more in 2 of 32 channels",
    ),
]


class Count(L.Callback):
    def __init__(self):
        self.steps = 0

    def on_train_batch_end(self, *_):
        self.steps += 1


@pytest.mark.parametrize(("callback", "message"), BROKEN)
@pytest.mark.parametrize("debug", [False, True])
def test_a_broken_promise_stops_the_run(callback, message, debug):
    count = Count()
    with pytest.raises(RuntimeError, match=message):
        fit(Classifier(), callback(), count, max_epochs=1, detect_anomaly=debug)
    assert count.steps == (0 if debug else 8)


@pytest.mark.parametrize("quantize", [lambda s: QATCallback(3, schedule=s), lambda s: BinarizationCallback(schedule=s)])
def test_promises_hold_after_every_update(quantize):
    ramp = Linear(0.1, 0.8)
    fit(Classifier(), quantize(ramp), PruningCallback(0.5, schedule=ramp), detect_anomaly=True)


def test_zeros_of_pruning_are_no_third_value():
    module = Classifier()
    fit(module, BinarizationCallback(), PruningCallback(0.5))
    for row in module.net[1].weight.detach():
        assert {float(value) for value in row.abs().unique()} <= {0.0, float(row.abs().max())}
    assert torch.count_nonzero(module.net[1].weight) < 0.6 * module.net[1].weight.numel()
