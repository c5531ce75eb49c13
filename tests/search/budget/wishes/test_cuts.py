"""The wish for the speed: the callback that a budget brings, when it removes channels, what it says at the end."""

import pytest
import torch
from torch import nn

from lightning_compress import CompressionBudget
from lightning_compress.schedules import Linear
from lightning_compress.search.budget.wishes.cuts import Batched


def brought(**options):
    (callback,) = CompressionBudget(**options).brings
    return callback


def test_a_wish_for_the_file_brings_no_callback():
    assert not CompressionBudget(bytes=9).brings
    assert not CompressionBudget(max_drop=0.1).brings


def test_the_callback_gets_the_arguments_of_the_budget():
    callback = brought(macs=0.3, round_to=4, every_n_steps=3, include=("a.*",), exclude=("a.b",))
    assert (callback.macs, callback.latency, callback.round_to, callback.every_n_steps) == (0.3, None, 4, 3)
    assert (callback.include, callback.exclude) == (("a.*",), ("a.b",))
    assert brought(latency=0.3).latency == 0.3


def test_channels_go_in_the_first_half_of_the_schedule():
    """Between 0.2 and 0.6; the file follows until 1."""
    whole = Linear(0.2, 1.0)
    together, alone = CompressionBudget(bytes=9, macs=0.5, schedule=whole), CompressionBudget(macs=0.5, schedule=whole)
    (channels,) = together.brings
    assert [channels.schedule(t) for t in (0.2, 0.4, 0.6, 0.8)] == pytest.approx([0, 1 - 0.5**3, 1, 1])
    assert [together.strength_at(t, 0.0) for t in (0.2, 0.6, 0.8, 1.0)] == pytest.approx([0, 0, 0.5, 1])
    assert alone.brings[0].schedule == whole
    assert alone.strength_at(0.6, 0.0) == pytest.approx(0.5)


def test_the_schedule_of_the_channels_is_shown():
    callback = brought(bytes=9, macs=0.5, schedule=Linear(0.2, 1.0))
    assert repr(callback.schedule) == "Cubic(begin=0.0, until=0.5) of Linear(begin=0.2, until=1.0)"


def test_models_run_on_batches_of_the_asked_size():
    seen = []

    def runner(module, example):
        return lambda: seen.append(module(example).tolist())

    Batched(runner, 3)(nn.Identity(), torch.tensor([1, 2]))()
    assert seen == [[1, 2, 1]]
    assert repr(Batched(runner, 3)) == "runner with batches of 3"
