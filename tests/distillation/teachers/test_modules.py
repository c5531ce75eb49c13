"""Modules as teachers: frozen, in eval mode, with their layers; ensembles."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_compress.distillation import Ensemble
from lightning_compress.distillation.features import NetworkCall
from lightning_compress.distillation.teachers import Live
from tests.support.students import data, teacher


def call(x: Tensor) -> NetworkCall:
    return NetworkCall((x,), {}, {"": x})


def begun(module: nn.Module) -> Live:
    live = Live(module)
    live.begin(nn.Module(), "", lambda module: module)
    return live


def test_live_answers_in_eval_without_gradients() -> None:
    master, x = teacher(), data().tensors[0]
    answer = begun(master).answer(call(x), ["", "norm"])
    assert not any(output.requires_grad or output.is_inference() for output in answer.values())
    torch.testing.assert_close(answer[""], master(x))
    assert answer["norm"].shape == (32, 6, 8, 8)
    assert not master._forward_hooks


def test_a_layer_that_does_not_run_is_refused() -> None:
    master = nn.Sequential(nn.Identity())
    master.spare = nn.Module()
    master.forward = lambda x: x
    with pytest.raises(ValueError, match=r"need teacher layers that run .* got no call of 0, spare"):
        begun(master).answer(call(torch.ones(1)), ["0", "spare"])


def test_ensemble_is_the_mean_and_its_members_have_layers() -> None:
    members, x = [teacher(1), teacher(2)], data().tensors[0]
    answer = begun(Ensemble(members)).answer(call(x), ["", "members.1.head"])
    torch.testing.assert_close(answer[""], (members[0](x) + members[1](x)) / 2)
    torch.testing.assert_close(answer["members.1.head"], members[1](x))
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])
