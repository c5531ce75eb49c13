"""Modules within modules: each has the hyperparameters that it was built with."""

import lightning as L
import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_compress.cli.training import CompressionCLI

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Lightning's use of jsonargparse
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]


class Net(L.LightningModule):
    """Builds itself from what it saved, as many do."""

    def __init__(self, width: int = 8, lr: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(8, self.hparams["width"]), nn.ReLU(), nn.Linear(self.hparams["width"], 3))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


class Data(L.LightningDataModule):
    def train_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(32, 8, generator=generator)
        return DataLoader(TensorDataset(x, (x[:, :3]).argmax(1)), batch_size=8)

    val_dataloader = train_dataloader


def net(**init_args):
    return {"class_path": f"{__name__}.Net", "init_args": init_args}


def run(folder, verb, model, *words, callbacks=()):
    config = {
        "seed_everything": 0,
        "model": model,
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "default_root_dir": str(folder),
            "callbacks": [
                *callbacks,
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {"dirpath": str(folder), "filename": "last", "enable_version_counter": False},
                },
            ],
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return CompressionCLI(
        datamodule_class=Data, args=[verb, "--config", str(folder / "config.yaml"), *words], save_config_callback=None
    )


@pytest.fixture(autouse=True)
def _program(monkeypatch):
    monkeypatch.setattr("sys.argv", ["program"])


def test_a_student_and_its_teacher(tmp_path):
    model = {
        "class_path": "lightning_compress.DistillationModule",
        "init_args": {"student": net(width=4, lr=0.2), "teacher": net(width=16)},
    }
    cli = run(tmp_path, "fit", model)
    assert dict(cli.model.student.hparams) == {"width": 4, "lr": 0.2}
    assert cli.model.objective.settings.network_of_teacher().net[0].out_features == 16
    saved = str(tmp_path / "last.ckpt")
    loaded = Net.load_from_checkpoint(saved)
    assert loaded.net[0].out_features == 4
    again = run(tmp_path, "validate", model, "--ckpt_path", saved)
    assert torch.equal(again.model.net[0].weight, loaded.net[0].weight)


def test_a_teacher_of_the_same_class_as_the_model(tmp_path):
    teacher = {"class_path": "lightning_compress.DistillationCallback", "init_args": {"teacher": net(width=16)}}
    cli = run(tmp_path, "fit", net(width=4), callbacks=[teacher])
    assert cli.model.hparams["width"] == 4
    taught = next(c for c in cli.trainer.callbacks if type(c).__name__ == "DistillationCallback")
    assert taught.settings.network_of_teacher().net[0].out_features == 16


def test_the_hyperparameters_of_a_plain_model_come_with_its_checkpoint(tmp_path):
    run(tmp_path, "fit", net(width=5))
    cli = run(tmp_path, "validate", net(width=8), "--ckpt_path", str(tmp_path / "last.ckpt"))
    assert cli.model.net[0].out_features == 5
