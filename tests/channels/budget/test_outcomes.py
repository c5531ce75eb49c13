import pytest
import torch
from torch import nn

from lightning_compress.channels.budget.budgets import Budget
from lightning_compress.channels.budget.outcomes import Outcome, timed_outcome
from lightning_compress.channels.budget.runners import eager

HALF = Budget("latency", 0.5)


def told(**values):
    return Outcome(**{"budget": HALF, "asker": "ChannelPruningCallback", **values})


def test_a_budget_that_is_met():
    outcome = told(reached=0.47, runner=eager)
    assert outcome.result == "ChannelPruningCallback: 0.47 of the latency left, asked for 0.5"
    assert outcome.missed == ""
    assert outcome.report() == {"latency": 0.47}


def test_a_budget_that_is_missed():
    outcome = told(reached=0.52, runner=eager)
    assert outcome.result == "ChannelPruningCallback: 0.52 of the latency left, asked for 0.5"
    assert outcome.missed == (
        "ChannelPruningCallback missed latency=0.5 by 0.02: 0.52 of the latency is left, measured in PyTorch; "
        "ask for less than you need, or for macs="
    )
    assert outcome.report() == {"latency": 0.52, "missed": outcome.missed}


def test_macs_are_counted_and_not_measured():
    outcome = told(budget=Budget("macs", 0.3), reached=0.25)
    assert outcome.result == "ChannelPruningCallback: 0.25 of the MACs left, asked for 0.3"


def test_before_fit_has_ended_there_is_nothing_to_tell():
    assert (told().result, told().missed, told().report()) == ("", "", {})


def test_a_latency_needs_an_example():
    outcome = timed_outcome(HALF, "CompressionBudget", nn.Linear(2, 2), None, None, eager)
    assert outcome.reached is None
    assert outcome.result == (
        "CompressionBudget: the latency was not measured again: there is no example of the input, so set "
        "module.example_input_array"
    )


def test_no_run_is_lost_for_a_runtime_that_fails():
    def broken(module, example):
        raise OSError("no such device\nsecond line")

    outcome = timed_outcome(HALF, "CompressionBudget", nn.Linear(2, 2), torch.zeros(1, 2), None, broken)
    assert outcome.result == "CompressionBudget: the latency was not measured again: OSError: no such device"
    assert outcome.missed == ""


@pytest.mark.parametrize("halved", [0.5, 0.25])
def test_the_narrowed_model_is_timed_against_the_dense_one(halved, monkeypatch):
    monkeypatch.setattr("lightning_compress.channels.budget.latencies.time_ratio", lambda *runs: halved)
    assert timed_outcome(HALF, "", nn.Linear(2, 2), torch.zeros(1, 2), None, eager).reached == halved
