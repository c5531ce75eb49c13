"""Recordings and names of layers."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lightning_compress.distillation.features import Recorder, match, output_tensor


def test_recorder_keeps_outputs_by_call() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    recorder = Recorder(net, {"0": net[0]})
    with recorder.recording() as calls:
        net(torch.ones(1, 2))
        with torch.no_grad():
            net(torch.ones(9, 2))
        net(torch.zeros(4, 2))
    net(torch.ones(1, 2))
    assert [len(call.outputs["0"]) for call in calls] == [1, 4]
    assert calls[1].outputs["0"].requires_grad
    recorder.remove()
    assert not net._forward_hooks
    assert not net[0]._forward_hooks


def test_a_hooked_network_can_be_copied_and_pickled() -> None:
    net = nn.Sequential(nn.Linear(2, 3))
    Recorder(net, {"0": net[0]})
    for one in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert one(torch.ones(1, 2)).shape == (1, 3)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The output of a forecaster that keeps a state."""

    prediction: torch.Tensor
    state: torch.Tensor | None = None


def test_the_tensor_of_an_output() -> None:
    x = torch.ones(1)
    assert all(output_tensor(output) is x for output in (x, (x, None), [x], {"logits": x, "loss": None}))
    assert output_tensor(Forecast(x)) is output_tensor({"prediction": x, "loss": torch.zeros(()), "state": None}) is x
    for output in ({"loss": x}, (), "x", {"mean": x, "scale": x}, Forecast(x, state=x), Forecast):
        with pytest.raises(TypeError, match="need a layer whose output is a tensor.* give network= the name"):
            output_tensor(output)


def test_match_keeps_the_order_and_lists_what_there_is() -> None:
    assert match(["", "b", "a", "ab"], "?", "student") == ["b", "a"]
    assert match(["", "b"], "", "student") == [""]
    with pytest.raises(ValueError, match="layer of the teacher that matches 'c', got none; there are: b, a"):
        match(["", "b", "a"], "c", "teacher")
