"""Modules within modules: each has the hyperparameters that it was built with."""

import lightning as L
import pytest
import pytorch_lightning
import torch
import yaml
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_compress import export
from lightning_compress.cli import lightning as ours
from lightning_compress.cli import pytorch_lightning as theirs
from lightning_compress.cli.commands import main
from lightning_compress.cli.runs.prepared import Prepared
from lightning_compress.pruning import criteria

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Lightning's use of jsonargparse
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]


def classes(package):
    class Net(package.LightningModule):
        """Builds itself from what it saved, as many do."""

        def __init__(self, width: int = 8, lr: float = 0.1) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(
                nn.Linear(8, self.hparams["width"]), nn.ReLU(), nn.Linear(self.hparams["width"], 3)
            )

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])

    class Data(package.LightningDataModule):
        def train_dataloader(self):
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(32, 8, generator=generator)
            return DataLoader(TensorDataset(x, (x[:, :3]).argmax(1)), batch_size=8)

        val_dataloader = train_dataloader

    return Net, Data


Net, Data = classes(L)
OtherNet, OtherData = classes(pytorch_lightning)


def net(name="Net", **init_args):
    return {"class_path": f"{__name__}.{name}", "init_args": init_args}


def run(folder, verb, model, *words, callbacks=(), cli=ours, data=Data, package="lightning.pytorch"):
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
                    "class_path": f"{package}.callbacks.ModelCheckpoint",
                    "init_args": {"dirpath": str(folder), "filename": "last", "enable_version_counter": False},
                },
            ],
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return cli.CompressionCLI(
        datamodule_class=data, args=[verb, "--config", str(folder / "config.yaml"), *words], save_config_callback=None
    )


@pytest.fixture(autouse=True)
def _program(monkeypatch):
    monkeypatch.setattr("sys.argv", ["program"])


@pytest.mark.parametrize(
    ("kind", "package"),
    [
        (Net, {}),
        (OtherNet, {"cli": theirs, "data": OtherData, "package": "pytorch_lightning"}),
    ],
    ids=["lightning", "pytorch_lightning"],
)
def test_a_student_and_its_teacher(kind, package, tmp_path):
    name = "Net" if kind is Net else "OtherNet"
    model = {
        "class_path": "lightning_compress.DistillationModule",
        "init_args": {"student": net(name, width=4, lr=0.2), "teacher": net(name, width=16)},
    }
    pruning = {"class_path": "PruningCallback", "init_args": {"sparsity": 0.5, "schedule": "Constant"}}
    cli = run(tmp_path, "fit", model, callbacks=[pruning], **package)
    assert dict(cli.model.student.hparams) == {"width": 4, "lr": 0.2}
    assert cli.model.objective.settings.network_of_teacher().net[0].out_features == 16
    saved = str(tmp_path / "last.ckpt")
    loaded = kind.load_from_checkpoint(saved)
    assert loaded.net[0].out_features == 4
    assert sum((layer.weight == 0).sum() for layer in (loaded.net[0], loaded.net[2])) == (8 * 4 + 4 * 3) // 2
    again = run(tmp_path, "validate", model, "--ckpt_path", saved, callbacks=[pruning], **package)
    assert torch.equal(again.model.net[0].weight, loaded.net[0].weight)


def test_a_module_of_the_other_package_is_refused_with_both_ways_out(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": net("OtherNet")}))
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(tmp_path / "config.yaml")])
    said = capsys.readouterr().err
    assert "Net is of pytorch_lightning: take it, or its base class, from lightning.pytorch, or train" in said
    assert "with CompressionCLI of lightning_compress.cli.pytorch_lightning" in said


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


@pytest.mark.parametrize("form", ["checkpoint", "state dict", "archive"])
def test_a_model_starts_from_weights_in_a_file(form, tmp_path):
    trained = run(tmp_path, "fit", net(width=5))
    path = tmp_path / {"checkpoint": "last.ckpt", "state dict": "state.pt", "archive": "m.lcz"}[form]
    if form == "state dict":
        torch.save(trained.model.state_dict(), path)
    if form == "archive":
        export(trained.model, path)
    (tmp_path / "again").mkdir()
    again = run(
        tmp_path / "again",
        "fit",
        {"class_path": net()["class_path"], "init_args": {"width": 5, "lr": 0.0}},
        "--weights",
        str(path),
    )
    assert again.trainer.global_step == trained.trainer.global_step > 0  # the run begins anew
    for name, weight in trained.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weight)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "need weights as that of a file, got .*: no such file"),
        ([1], "need weights as a checkpoint of the Trainer, an archive or a state dict, got .*holds something else"),
        (b"not a file of torch", "need weights as a checkpoint .*got .*which is none of these, or not whole"),
        ({"net.0.weight": torch.zeros(2, 2)}, "need weights of this Net, got those of another model in .*: the file"),
    ],
)
def test_weights_that_do_not_fit_are_refused(content, match, tmp_path):
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        run(tmp_path, "fit", net(width=5), "--weights", str(path))


def test_records_and_hyperparameters_are_read_at_once(tmp_path, monkeypatch):
    run(tmp_path, "fit", net(width=5))
    read, load = [], torch.load

    def counted(*args, **kwargs):
        read.append(kwargs["map_location"])
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", counted)
    run(tmp_path, "validate", net(width=8), "--ckpt_path", str(tmp_path / "last.ckpt"))
    assert read.count("meta") == 1


@pytest.mark.parametrize(
    "method",
    [
        {"class_path": "ChannelPruningCallback", "init_args": {"channels": 0.5, "round_to": 1}},
        {"class_path": "LowRankCallback", "init_args": {"parameters": 0.5}},
        {"class_path": "QATCallback"},
    ],
    ids=lambda method: method["class_path"],
)
@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path.", "ignore:The dirpath has changed")
def test_a_compressed_checkpoint_needs_no_callback(method, tmp_path):
    trained = run(tmp_path, "fit", net(width=16), callbacks=[method])
    loss = float(trained.trainer.callback_metrics["val_loss"])
    words = ["--ckpt_path", str(tmp_path / "last.ckpt")]
    for verb in ("validate", "fit"):  # which goes on from the end, and trains no more
        again = run(tmp_path, verb, net(width=16), *words)
        shapes = {name: tensor.shape for name, tensor in again.model.state_dict().items()}
        assert shapes == {name: tensor.shape for name, tensor in trained.model.state_dict().items()}
        if verb == "validate":
            assert float(again.trainer.callback_metrics["val_loss"]) == pytest.approx(loss, rel=1e-6)
    prepared = Prepared.of([f"--config={tmp_path / 'config.yaml'}", *words], ours.CompressionCLI)
    images = torch.rand(4, 8)
    with torch.no_grad():
        assert torch.equal(prepared.module.eval()(images), trained.model.eval()(images))


PRUNING = {"class_path": "PruningCallback", "init_args": {"sparsity": 0.9, "floor": 0.0}}


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_a_word_changes_an_argument_of_any_callback(verb, tmp_path):
    sharing = {"class_path": "WeightSharingCallback", "init_args": {"clusters": 16}}
    words = ["PruningCallback.sparsity", "0.7", "PruningCallback.sparsity=0.5", "1.clusters", "4"]
    words += ["PruningCallback.criterion", "taylor", "PruningCallback.schedule={class_path: Linear}"]
    words += ["PruningCallback.schedule.until=0.25", "2.save_last", "true"]
    words = [word if word[0] not in "P12" else f"--trainer.callbacks.{word}" for word in words]
    cli = run(tmp_path, verb, net(), *words, callbacks=[PRUNING, sharing])
    pruning, shared, checkpoint = cli.config[verb].trainer.callbacks
    given = pruning.init_args
    assert (given.sparsity, given.floor, given.schedule.init_args.until) == (0.5, 0.0, 0.25)
    assert given.criterion is criteria.taylor
    assert (shared.init_args.clusters, checkpoint.init_args.save_last) == (4, True)
    assert cli.trainer.callbacks[0].sparsity == 0.5
    if verb == "fit":
        assert sum(int((weight == 0).sum()) for weight in (cli.model.net[0].weight, cli.model.net[2].weight)) == 44


def test_the_printed_config_has_the_values_of_words(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(
            tmp_path,
            "fit",
            net(),
            "--trainer.callbacks.0.sparsity=0.25",
            "--print_config=skip_null",
            callbacks=[PRUNING],
        )
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"][0]["init_args"]["sparsity"] == 0.25


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("PruningCallback.sparsty=0.5", "got 'sparsty' of trainer.callbacks.0, which has .*; did you mean 'sparsity'"),
        ("QATCallback.weight_bits=4", "got 'QATCallback' of trainer.callbacks, which has PruningCallback, Mod"),
        ("5.sparsity=0.5", "got '5' of trainer.callbacks, which has PruningCallback"),
        ("PruningCallback.sparsity", "need a value after --trainer.callbacks.PruningCallback.sparsity, got none"),
    ],
)
def test_a_word_that_changes_nothing_is_refused(word, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        run(tmp_path, "fit", net(), f"--trainer.callbacks.{word}", callbacks=[PRUNING])
