"""A file that a run cannot go on from is named in a sentence, before the first step."""

import pickle

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_compress import CompressionReport, DistillationCallback, PruningCallback, export
from lightning_compress.distillation import losses
from lightning_compress.schedules import Constant
from tests.support.runs import resumes

PACKAGES = {"lightning": lightning.pytorch, "pytorch_lightning": pytorch_lightning}
CALLBACKS = {
    "pruning": lambda: PruningCallback(0.5, schedule=Constant()),
    "report": CompressionReport,
    "teacher": lambda: DistillationCallback(nn.Linear(4, 2), losses=[losses.mse]),
}
pytestmark = [resumes, pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")]


@pytest.fixture(params=PACKAGES)
def package(request):
    return PACKAGES[request.param]


@pytest.fixture(params=CALLBACKS)
def callback(request):
    return CALLBACKS[request.param]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def module_of(package, width):
    class Module(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, width)
            self.steps = 0

        def forward(self, batch):
            return self.net(batch)

        def training_step(self, batch, batch_idx):
            self.steps += 1
            return self(batch)[:, :2].square().mean()

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self(batch).square().mean())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    return Module()


def trainer_of(package, callback, epochs):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return package.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=[callback], enable_model_summary=False, **quiet
    )


LOADER = DataLoader(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), 4)


def written(package, callback):
    """A run of one epoch, and the files that it wrote."""
    module, trainer = module_of(package, 2), trainer_of(package, callback(), 1)
    trainer.fit(module, LOADER)
    trainer.save_checkpoint("run.ckpt")
    export(module, "m.lcz")
    torch.save(module.state_dict(), "weights.pt")
    with open("junk.ckpt", "wb") as file:
        file.write(b"no checkpoint")
    return trainer


@pytest.mark.parametrize("verb", ["fit", "validate"])
@pytest.mark.parametrize(
    ("path", "width", "message"),
    [
        (
            "m.lcz",
            2,
            r"got 'm.lcz', an archive, .*: load it by load_compressed\(..., 'm.lcz'\), and leave",
        ),
        ("weights.pt", 2, "got 'weights.pt', which is none: load a state dict by load_state_dict of the module"),
        ("junk.ckpt", 2, "got 'junk.ckpt', which is none, or not whole: name another"),
        ("run.ckpt", 3, r"of another: the file has 2 tensors of another shape \(net.weight: \[2, 4\], not \[3, 4\],"),
    ],
    ids=["archive", "state dict", "junk", "another model"],
)
def test_a_file_that_a_run_cannot_go_on_from_is_named(path, width, message, verb, package, callback):
    written(package, callback)
    module = module_of(package, width)
    with pytest.raises(ValueError, match=f"^need a checkpoint .* as ckpt_path, .*{message}") as error:
        getattr(trainer_of(package, callback(), 2), verb)(module, LOADER, ckpt_path=path)
    assert "\n" not in str(error.value)
    assert module.steps == 0


def test_a_checkpoint_of_the_run_and_a_missing_file_are_left_to_the_trainer(package, callback):
    trainer = written(package, callback)
    module = module_of(package, 2)
    again = trainer_of(package, callback(), 2)
    again.fit(module, LOADER, ckpt_path="run.ckpt")
    assert module.steps == 2
    assert again.global_step == 4
    assert "load_checkpoint" not in vars(again.strategy)
    with pytest.raises(FileNotFoundError, match="none.ckpt"):
        trainer_of(package, callback(), 2).fit(module, LOADER, ckpt_path="none.ckpt")
    copy = pickle.loads(pickle.dumps(vars(trainer.strategy)["load_checkpoint"].func))
    assert copy.__name__ == "_read"
