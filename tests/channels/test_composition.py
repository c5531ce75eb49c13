"""Channels are removed while the model is quantized and taught, in one fit."""

import copy

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_compress import DistillationCallback, DistillationModule, QATCallback
from lightning_compress.channels import ChannelPruningCallback
from lightning_compress.loading import load_compressed
from lightning_compress.quantization.weights import grids_of
from lightning_compress.schedules import Linear, Step
from tests.support.nets import Module, data, outcome
from tests.support.runs import trainer


@pytest.mark.parametrize("quantized_at", [0.2, 0.8], ids=["before removal", "after removal"])
@pytest.mark.parametrize("front", ["module", "callback"])
def test_narrowed_quantized_and_taught_in_one_fit(front, quantized_at, tmp_path):
    torch.manual_seed(0)
    student = Module()
    dense = copy.deepcopy(student)
    pruning = ChannelPruningCallback(0.5, round_to=2, every_n_steps=2, schedule=Linear(0.1, 0.5))
    callbacks = [
        pruning,
        QATCallback(schedule=Step(quantized_at), every_n_steps=2),
        ModelCheckpoint(tmp_path, filename="last"),
    ]
    if front == "callback":
        callbacks.append(DistillationCallback(dense, alpha=0.5))
    module = DistillationModule(student, dense, alpha=0.5) if front == "module" else student
    trainer(*callbacks, max_epochs=4).fit(module, data())

    assert pruning.metrics()["macs"] <= 0.5
    assert student.net.conv1.weight.shape[0] < dense.net.conv1.weight.shape[0] == 16
    for name, grid in grids_of(student).items():
        weight = student.get_parameter(name).detach()
        integers = weight / grid.scale.view(-1, *[1] * (weight.ndim - 1))
        torch.testing.assert_close(integers, integers.round(), rtol=0, atol=1e-3)
    assert set(grids_of(student)) >= {"net.conv1.weight", "net.conv2.weight"}
    loaded = load_compressed(Module, tmp_path / "last.ckpt")
    torch.testing.assert_close(outcome(loaded), outcome(student), rtol=0, atol=0)
