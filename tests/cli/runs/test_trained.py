"""A trained module is built from its config or class, with the weights of the file and an example of the data."""

import sys

import pytest
import torch

from lightning_compress.archive import save_archive
from lightning_compress.cli.lightning import CompressionCLI
from lightning_compress.cli.runs.folders import Source
from lightning_compress.cli.runs.trained import Trained

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Lightning's use of jsonargparse
PROJECT = '''
import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(L.LightningModule):
    """Saves no hyperparameters: the config has them."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.net = nn.Linear(3, width)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return self(batch[0]).sum()

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.arange(30.0).view(10, 3)), batch_size=5)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
'''
WEIGHTS = {"net.weight": torch.full((4, 3), 0.5), "net.bias": torch.zeros(4)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "widths.py").write_text(PROJECT)
    (tmp_path / "config.yaml").write_text(
        "model: {class_path: widths.Net, init_args: {width: 4}}\n"
        "trainer: {accelerator: cpu, logger: false, callbacks: [{class_path: PruningCallback}]}\n"
    )
    save_archive(WEIGHTS, tmp_path / "model.lcz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "argv", ["lightning-compress"])
    monkeypatch.delitem(sys.modules, "widths", raising=False)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    return tmp_path


def test_a_config_gives_the_arguments_and_the_example(folder):
    found = Trained.of(Source(folder / "model.lcz", folder / "config.yaml"), None, lambda: CompressionCLI)
    assert torch.equal(found.module.net.weight, WEIGHTS["net.weight"])
    assert found.example.tolist() == [[0.0, 1.0, 2.0]]
    assert not found.module.training


def test_a_class_and_the_sizes_of_an_example(folder, tmp_path):
    save_archive({"net.weight": torch.ones(2, 3), "net.bias": torch.zeros(2)}, tmp_path / "two.lcz")
    source = Source(tmp_path / "two.lcz", None, "widths.Net")
    assert Trained.of(source, "5,3", None).example.shape == (5, 3)
    torch.save(torch.eye(3), tmp_path / "x.pt")
    assert torch.equal(Trained.of(source, str(tmp_path / "x.pt"), None).example, torch.eye(3))
    assert Trained.of(source, None, None).lacking == "there is no config that names data"
    with pytest.raises(ValueError, match="need --example as sizes, such as 1,3,224,224, or as a file .*, got 'a,b'"):
        Trained.of(source, "a,b", None)
    with pytest.raises(ValueError, match="need --example as sizes of at least 1, .*, got '0,1,8,8'"):
        Trained.of(source, "0,1,8,8", None)
    for name in ("x.pt", "x.npy"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(ValueError, match=f"need --example as a file of tensors, got '.*{name}', which is damaged"):
            Trained.of(source, str(tmp_path / name), None)


@pytest.mark.parametrize("path", ["widths.Nett", "nowhere.Net", "Net"])
def test_a_class_that_cannot_be_found_is_named(path, folder):
    with pytest.raises(ValueError, match=f"need the class of the module, got {path}, which cannot be imported"):
        Trained.of(Source(folder / "model.lcz", None, path), None, None)


def test_a_class_whose_file_fails_is_named(folder):
    (folder / "broken.py").write_text("import nothing_of_this_name")
    with pytest.raises(ValueError, match="got broken.Net, whose import raises .*'nothing_of_this_name'"):
        Trained.of(Source(folder / "model.lcz", None, "broken.Net"), None, None)
