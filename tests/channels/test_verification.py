"""A promise of channel pruning that does not hold stops the run, with numbers."""

import pytest

from lightning_compress.channels import ChannelPruningCallback, callback
from lightning_compress.schedules import Constant
from tests.support.nets import Module, data
from tests.support.runs import trainer


class Forgetful(ChannelPruningCallback):
    """Sets an entry of a masked channel to another value than zero."""

    def project_(self, weights):
        super().project_(weights)
        weights["net.conv1.weight"][:, :, 0, 0] = 0.125


class Lazy(ChannelPruningCallback):
    """Masks nothing."""

    def _mask(self, units):
        super()._mask({name: chosen & False for name, chosen in units.items()})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Forgetful, r"need the \d+ entries of masked channels of 'net.conv1.weight' to be zero, got \d+ others"),
        (Lazy, r"need macs <= 0\.5 of the dense model, got 1"),
    ],
)
def test_masks_that_break_the_promise_stop_the_run(kind, message):
    pruning = kind(0.5, round_to=2, remove=False, schedule=Constant())
    with pytest.raises(RuntimeError, match=message):
        trainer(pruning, max_epochs=1).fit(Module(), data())


def test_a_removal_that_leaves_other_shapes_stops_the_run(monkeypatch):
    monkeypatch.setattr(callback, "remove_units_", lambda *_: {})
    pruning = ChannelPruningCallback(0.5, round_to=2, schedule=Constant())
    with pytest.raises(RuntimeError, match=r"need 'net\..*' of shape \[.*\] after the removal of channels, got \[.*\]"):
        trainer(pruning, max_epochs=1).fit(Module(), data())
