"""What each method logs: its amount at the end, and where the schedule stands before."""

import lightning as L
import pytest

from lightning_compress import LowRankCallback, PruningCallback, QATCallback, WeightSharingCallback
from lightning_compress.schedules import Linear
from tests.support.toys import build, fit

RAMP = {"schedule": Linear(0.0, 0.5), "every_n_steps": 1}


@pytest.mark.parametrize(
    ("callback", "name", "value"),
    [
        (PruningCallback(0.9, **RAMP), "compression/sparsity", 0.9),
        (WeightSharingCallback(8, **RAMP), "compression/clusters", 8),
        (QATCallback(8, **RAMP), "compression/quantization", 1),
        (QATCallback(8, include=["net.9", "net.11"], **RAMP), "compression/quantization/net.9,net.11", 1),
        (LowRankCallback(0.5, **RAMP), "compression/parameters", pytest.approx(0.5, abs=0.05)),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_the_amount_is_logged(callback, name, value):
    assert fit(build(), callback, max_epochs=1).callback_metrics[name] == value


def test_the_progress_of_the_schedule_is_logged():
    """After 6 of 12 steps of a ramp over the whole run."""
    seen = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            seen.append(float(trainer.callback_metrics.get("compression/quantization", -1)))

    fit(build(), QATCallback(8, schedule=Linear(0.0, 1.0), every_n_steps=1), Look(), max_epochs=1)
    assert seen[:1] < seen[5:6] < seen[-1:]
    assert seen[6] == pytest.approx(0.5, abs=0.1)
