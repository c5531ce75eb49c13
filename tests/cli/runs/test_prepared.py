"""The parts of a config are built as a Trainer would build them."""

import sys

import pytest
import torch

from lightning_compress.cli.lightning import CompressionCLI
from lightning_compress.cli.runs.prepared import Prepared

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Lightning's use of jsonargparse
PROJECT = '''
import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Late(L.LightningModule):
    """Has its own data; its layers are built in setup and in configure_model."""

    def setup(self, stage):
        self.width = 4 if self.trainer.max_epochs == 7 else 2

    def configure_model(self):
        self.net = nn.Linear(3, self.width)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return self(batch[0]).sum()

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.arange(30.0).view(10, 3)), batch_size=5)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
'''
WORDS = ["--model=late.Late", "--trainer.max_epochs=7", "--trainer.accelerator=cpu", "--trainer.logger=false"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "late.py").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "late", raising=False)
    monkeypatch.setattr(sys, "argv", ["lightning-compress", "plan", *WORDS])
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    return tmp_path


def test_a_module_with_data_and_layers_of_its_own(caplog):
    prepared = Prepared.of([*WORDS, "--trainer.callbacks=PruningCallback"], CompressionCLI)
    assert prepared.module.net.weight.shape == (4, 3)
    assert not [record for record in caplog.records if "available" in record.getMessage()]
    assert prepared.data is None
    assert prepared.example(prepared.callbacks).tolist() == [[0.0, 1.0, 2.0]]
    assert "PruningCallback" in {type(callback).__name__ for callback in prepared.callbacks}


def test_the_weights_of_a_checkpoint(folder):
    weights = {"net.weight": torch.full((4, 3), 0.5), "net.bias": torch.zeros(4)}
    torch.save({"state_dict": weights}, folder / "dense.ckpt")
    prepared = Prepared.of([*WORDS, "--ckpt_path=dense.ckpt"], CompressionCLI)
    assert torch.equal(prepared.module.net.weight, weights["net.weight"])
    torch.save({"state_dict": {"net.weight": torch.zeros(2, 3)}}, folder / "other.ckpt")
    with pytest.raises(
        ValueError,
        match="need a checkpoint of this model as ckpt_path, got 'other.ckpt', which is of another: the file",
    ):
        Prepared.of([*WORDS, "--ckpt_path=other.ckpt"], CompressionCLI)
