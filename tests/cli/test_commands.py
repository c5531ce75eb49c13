"""The command line, called as a user would, with configs as a user would type them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_compress import PruningCallback, load_archive
from lightning_compress.archive import save_archive
from lightning_compress.cli import main
from lightning_compress.pruning import NM, criteria
from lightning_compress.report import CompressionReport
from lightning_compress.schedules import Linear
from tests.support.reports import write_report

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Lightning's use of jsonargparse
ROOT = Path(__file__).parents[2]
CONFIG = """
seed_everything: 0
model:
  class_path: project.Net
  init_args: {width: 16}
data: {class_path: project.Data}
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 2
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
  log_every_n_steps: 1
  logger:
    class_path: CSVLogger
    init_args: {save_dir: runs, name: one, version: 0}
  callbacks:
    - class_path: PruningCallback
      init_args:
        criterion: lightning_compress.pruning.criteria.taylor
        pattern: {class_path: NM, init_args: {n: 2, m: 4}}
        schedule: {class_path: lightning_compress.schedules.Linear, init_args: {begin: 0.1, until: 0.6}}
        every_n_steps: 2
    - class_path: CompressionReport
    - class_path: ModelCheckpoint
      init_args: {save_last: true}
"""
SHAPES = {"0.weight": (16, 12), "0.bias": (16,), "2.weight": (3, 16), "2.bias": (3,)}
PROJECT = '''
import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Net(L.LightningModule):
    """A small classifier."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def predict_step(self, batch, batch_idx):
        return self(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


class Data(L.LightningDataModule):
    def train_dataloader(self):
        x = torch.randn(64, 12, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=8)

    val_dataloader = test_dataloader = predict_dataloader = train_dataloader
'''


@pytest.fixture(autouse=True)
def seed(monkeypatch):
    """Lightning warns where it has to choose a seed, unless an earlier test has chosen one."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's project: a module, a config, and the shell in its folder."""
    (tmp_path / "project.py").write_text(PROJECT)
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "project", raising=False)
    return tmp_path


def command(monkeypatch, line):
    """Type a line into the shell."""
    monkeypatch.setattr(sys, "argv", line.split())
    main()


def printed(monkeypatch, capsys, line):
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, line)
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Experiment logs directory", "ignore:Checkpoint directory")
def test_fit_leaves_the_report_the_archive_and_the_config(folder, monkeypatch):
    command(monkeypatch, "lightning-compress fit --config config.yaml")
    run = folder / "runs" / "one" / "version_0"
    written = {path.name for path in run.iterdir()}
    assert {"report.md", "report.json", "model.lcz", "config.yaml", "metrics.csv"} <= written
    weight = load_archive(run / "model.lcz")["net.0.weight"]
    assert ((weight.view(-1, 4) != 0).sum(1) == 2).all()
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(last["net.0.weight"], weight)

    # The saved config runs again to the same weights, beside the first report; checkpoints are validated and tested.
    monkeypatch.setattr(sys, "path", list(sys.path))
    command(monkeypatch, f"lightning-compress fit --config {run / 'config.yaml'}")
    again = run / "compression_reports" / "version_0" / "model.lcz"
    assert torch.equal(load_archive(again)["net.0.weight"], weight)
    for verb in ("validate", "test", "predict"):
        command(monkeypatch, f"lightning-compress {verb} --config config.yaml --ckpt_path {run}/checkpoints/last.ckpt")


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_the_config_of_a_run_is_saved_over_that_of_a_run_alone(folder, monkeypatch):
    """Without a logger it is saved in the working directory, where the user's own configs lie."""

    def fit(config, *words):
        monkeypatch.setattr(sys, "path", list(sys.path))
        command(monkeypatch, " ".join(["lightning-compress fit --config", config, "--trainer.logger false", *words]))

    mine = folder / "config.yaml"
    fit("config.yaml", "--trainer.max_epochs 1")
    assert mine.read_text() == CONFIG
    (folder / "other.yaml").write_text(CONFIG)
    fit("other.yaml")
    assert mine.read_text() == CONFIG

    mine.unlink()
    for epochs in (1, 2):
        fit("other.yaml", f"--trainer.max_epochs {epochs}")
        assert yaml.safe_load(mine.read_text())["trainer"]["max_epochs"] == epochs
    saved = mine.read_text()
    fit("config.yaml", "--trainer.max_epochs 1")
    assert mine.read_text() == saved


def test_print_config_round_trips(folder, monkeypatch, capsys):
    once = printed(monkeypatch, capsys, "lightning-compress fit --config config.yaml --print_config")
    (folder / "printed.yaml").write_text(once)
    twice = printed(monkeypatch, capsys, "lightning-compress fit --config printed.yaml --print_config")
    assert once == twice
    pruning, report, _ = yaml.safe_load(once)["trainer"]["callbacks"]
    assert pruning["class_path"] == "lightning_compress.PruningCallback"
    assert pruning["init_args"]["pattern"] == {"class_path": "lightning_compress.NM", "init_args": {"n": 2, "m": 4}}
    assert pruning["init_args"]["criterion"] == "lightning_compress.pruning.criteria.taylor"
    assert report["class_path"].startswith("lightning_compress.")


def test_the_config_builds_the_objects_that_python_would(folder, monkeypatch):
    built = {}
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", lambda trainer, model, **_: built.update(trainer=trainer))
    command(monkeypatch, "lightning-compress fit --config config.yaml --trainer.callbacks.monitor val_loss")
    by_class = {type(callback): callback for callback in built["trainer"].callbacks}
    pruning = by_class[PruningCallback]
    assert pruning.criterion is criteria.taylor
    assert pruning.pattern == NM(2, 4)
    assert pruning.schedule == Linear(0.1, 0.6)
    assert pruning.sparsity == 0.5
    assert by_class[CompressionReport].dirpath is None
    assert by_class[ModelCheckpoint].monitor == "val_loss"


def test_callbacks_from_the_command_line(folder, monkeypatch):
    built = {}
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", lambda trainer, model, **_: built.update(trainer=trainer))
    line = "--trainer.callbacks=PruningCallback --trainer.callbacks.sparsity=0.8 --trainer.callbacks.scope=layer"
    options = f"--seed_everything 0 --model project.Net --data project.Data --trainer.logger false {line}"
    command(monkeypatch, f"lightning-compress fit {options}")
    (pruning,) = [callback for callback in built["trainer"].callbacks if isinstance(callback, PruningCallback)]
    assert (pruning.sparsity, pruning.scope) == (0.8, "layer")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("--trainer.callbacks=PruningCallback --trainer.callbacks.sparsty=0.8", "sparsty"),
        ("--trainer.callbacks=PruningCallback --trainer.callbacks.scope=all", "all"),
        ("--trainer.callbacks=Pruner", "Pruner"),
        ("--trainer.max_epocs=3", "max_epocs"),
        ("--config missing.yaml", "missing.yaml"),
    ],
)
def test_a_wrong_argument_is_named(wrong, said, folder, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, f"lightning-compress fit --model project.Net --data project.Data {wrong}")
    assert stopped.value.code == 2
    error = capsys.readouterr().err.partition("error:")[2]
    assert said in error


PLACE = """Parser key "trainer.callbacks": Problem with given class_path 'lightning_compress.PruningCallback':"""


@pytest.mark.parametrize(
    ("init_args", "said"),
    [
        ("sparsty: 0.9", f"{PLACE} Option 'sparsty' is not accepted; did you mean 'sparsity'?"),
        ("sparsity: ninety", f"""{PLACE} Parser key "sparsity": Expected a <class 'float'>. Got value: ninety"""),
        (
            "schedule: cubic",
            "need schedule as one of Constant, Cosine, Cubic, Exponential, Linear, Step, or as a dotted path to your "
            "own, got 'cubic'; did you mean 'Cubic'?",
        ),
    ],
)
def test_the_last_line_says_what_is_wrong_in_a_config(init_args, said, folder, monkeypatch, capsys):
    callback = f"{{class_path: PruningCallback, init_args: {{{init_args}}}}}"
    (folder / "wrong.yaml").write_text(f"trainer: {{callbacks: [{callback}]}}")
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, "lightning-compress fit --model project.Net --config wrong.yaml")
    assert stopped.value.code == 2
    place = f"wrong.yaml, line 1, trainer.callbacks.0.{init_args.partition(':')[0]}"
    assert capsys.readouterr().err == f"lightning-compress: error: {said} (in {place})\n"


def test_a_checkpoint_whose_hyperparameters_do_not_fit_is_named(folder, monkeypatch, capsys):
    hyperparameters = {"_class_path": "project.Other", "width": 8}
    torch.save(
        {"state_dict": {}, "pytorch-lightning_version": "2.6.0", "hyper_parameters": hyperparameters},
        folder / "other.ckpt",
    )
    with pytest.raises(SystemExit):
        command(monkeypatch, "lightning-compress test --config config.yaml --ckpt_path other.ckpt")
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("lightning-compress: error: Hyperparameters that other.ckpt holds: ")
    assert last.endswith("module 'project' has no attribute 'Other'")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("--trainer.callbacks.sparsity=1.5", "need 0 < sparsity < 1, got sparsity=1.5"),
        ("--trainer.callbacks.include=[nope]", "need include patterns that match a parameter, got 'nope'; there are: "),
    ],
    ids=["constructor", "fit"],
)
def test_what_this_package_refuses_is_said_without_a_traceback(wrong, said, folder, monkeypatch):
    line = f"--trainer.max_epochs=1 --trainer.callbacks=PruningCallback --trainer.logger false {wrong}"
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, f"lightning-compress fit --model project.Net --data project.Data {line}")
    assert str(stopped.value.code).startswith(f"lightning-compress: error: {said}")


def test_a_file_that_is_no_checkpoint_is_named(folder, monkeypatch):
    save_archive({"net.0.weight": torch.eye(8)}, folder / "model.lcz")
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, "lightning-compress test --config config.yaml --ckpt_path model.lcz")
    said = "lightning-compress: error: need a checkpoint that the Trainer wrote as ckpt_path, got 'model.lcz', "
    assert str(stopped.value.code).startswith(said)


@pytest.mark.parametrize("verb", ["validate", "fit", "sensitivity"])
@pytest.mark.parametrize(
    "content",
    [torch.zeros(3), {"a.weight": torch.zeros(2)}, {"state_dict": {}}, {"state_dict": {}, "at": Path()}, None],
    ids=["tensor", "state dict", "empty", "objects", "damaged"],
)
def test_a_checkpoint_that_is_none_is_said_in_a_line(verb, content, folder, monkeypatch):
    torch.save(content, folder / "other.ckpt")
    if content is None:
        whole = (folder / "other.ckpt").read_bytes()
        (folder / "other.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, f"lightning-compress {verb} --config config.yaml --ckpt_path other.ckpt")
    said = str(stopped.value.code)
    assert said.startswith("lightning-compress: error: need a checkpoint ")
    assert "'other.ckpt'" in said
    assert "\n" not in said


def test_errors_of_other_code_keep_their_traceback(folder, monkeypatch):
    def fit(*_, **__):
        raise ValueError("of the project")

    monkeypatch.setattr("lightning.pytorch.Trainer.fit", fit)
    with pytest.raises(ValueError, match="of the project"):
        command(monkeypatch, "lightning-compress fit --model project.Net --data project.Data")


def test_faults_of_this_package_keep_their_traceback(folder, monkeypatch):
    monkeypatch.setattr("lightning_compress.training.run.announce", None)
    line = "--trainer.max_epochs=1 --trainer.callbacks=PruningCallback --trainer.logger false"
    with pytest.raises(TypeError, match="not callable"):
        command(monkeypatch, f"lightning-compress fit --model project.Net --data project.Data {line}")


def test_a_plan_is_printed_and_nothing_is_trained(folder, monkeypatch, capsys):
    def fit(trainer, model, train_dataloaders=None, val_dataloaders=None, datamodule=None, ckpt_path=None):
        raise AssertionError("trained")

    monkeypatch.setattr("lightning.pytorch.Trainer.fit", fit)
    command(monkeypatch, "lightning-compress plan --config config.yaml --trainer.callbacks+=QATCallback")
    out = capsys.readouterr().out
    assert out.startswith("Predicted archive (.lcz): ")
    assert "\n1 PruningCallback: 0.5 sparse by taylor, NM(n=2, m=4)" in out
    assert "quantizers of activations" in out
    assert {path.name for path in folder.iterdir()} <= {"project.py", "config.yaml", "__pycache__"}


def test_a_plan_as_json(folder, monkeypatch, capsys):
    command(monkeypatch, "lightning-compress plan --json --config config.yaml --model.width=8")
    found = json.loads(capsys.readouterr().out)
    assert found["totals"]["after"]["macs"] == 12 * 8 + 8 * 3
    assert [layer["after"]["nonzeros"] for layer in found["layers"]] == [48, 8, 12, 3]


def test_a_plan_refuses_what_fit_refuses(folder, monkeypatch, capsys):
    line = "--trainer.callbacks=PruningCallback --trainer.callbacks.include=[nope]"
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, f"lightning-compress plan --config config.yaml {line}")
    assert "error: need include patterns that match a parameter, got 'nope'" in str(stopped.value.code)
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, "lightning-compress plan --config config.yaml --jason")
    assert stopped.value.code == 2
    assert "jason" in capsys.readouterr().err


def test_sensitivities_of_a_config(folder, monkeypatch, capsys):
    weights = {f"net.{layer}": torch.rand(shape) for layer, shape in SHAPES.items()}
    torch.save({"state_dict": weights}, folder / "dense.ckpt")
    line = "--config config.yaml --ckpt_path dense.ckpt --metric val_loss --mode min --examples 40 --fisher_examples 8"
    command(monkeypatch, f"lightning-compress sensitivity {line} --path trials.jsonl --csv rows.csv --plot heat.png")
    printed = capsys.readouterr()
    assert "Drop of the metric with one layer compressed, 40 examples" in printed.out
    assert "new model" not in printed.err
    assert (folder / "rows.csv").read_text().startswith("layer,method,label,metric,drop,cost,")
    assert (folder / "heat.png").read_bytes()[1:4] == b"PNG"
    command(monkeypatch, f"lightning-compress sensitivity {line} --path trials.jsonl --json")
    found = json.loads(capsys.readouterr().out)
    assert [row["layer"] for row in found["rows"]] == ["net.0.weight", "net.2.weight"]
    module = torch.nn.Sequential(torch.nn.Linear(12, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    module.load_state_dict({name.removeprefix("net."): value for name, value in weights.items()})
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(0))[:40]
    loss = torch.nn.functional.cross_entropy(module(x), x[:, :3].argmax(1)).item()
    assert found["dense"] == pytest.approx(loss, rel=1e-5)


def test_sensitivities_of_a_new_model_say_so(folder, monkeypatch, capsys):
    command(monkeypatch, "lightning-compress sensitivity --config config.yaml --examples 8 --fisher_examples 8")
    assert "these are the weights of a new model: pass --ckpt_path" in capsys.readouterr().err


def test_sensitivities_refuse_what_the_function_refuses(folder, monkeypatch):
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, "lightning-compress sensitivity --config config.yaml --metric val_loss")
    assert "error: need mode='min' or mode='max' with metric" in str(stopped.value.code)
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, "lightning-compress sensitivity --config config.yaml --trainer.callbacks=null")
    assert "error: need at least one method, got none" in str(stopped.value.code)


def test_runs_are_compared(tmp_path, monkeypatch, capsys):
    write_report(tmp_path / "a", size=100, metrics={"val_acc": 0.8})
    write_report(tmp_path / "b", size=300, metrics={"val_acc": 0.9})
    monkeypatch.chdir(tmp_path)
    command(monkeypatch, "lightning-compress compare a b --plot runs.png")
    assert "\n1 a  *    100   10.00x" in capsys.readouterr().out
    assert (tmp_path / "runs.png").read_bytes()[1:4] == b"PNG"
    command(monkeypatch, "lightning-compress compare a b --metric val_acc --mode min --json")
    assert [run["front"] for run in json.loads(capsys.readouterr().out)["runs"]] == [True, False]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("none", "need paths of runs, got 'none', which does not exist"),
        (".", "need a folder with a report.json in it or below it, got '.'"),
    ],
    ids=["path", "report"],
)
def test_a_comparison_says_in_a_line_what_is_wrong(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, f"lightning-compress compare {words}")
    assert str(stopped.value.code).startswith(f"lightning-compress: error: {said}")


def test_inspect_does_not_import_lightning(tmp_path):
    save_archive({"a": torch.eye(3)}, tmp_path / "m.lcz")
    code = (
        "import sys; from lightning_compress.cli import main; main();"
        "assert not [name for name in sys.modules if name.partition('.')[0] in ('lightning', 'jsonargparse')]"
    )
    line = [sys.executable, "-c", code, "inspect", str(tmp_path / "m.lcz")]
    assert "3 x 3" in subprocess.run(line, check=True, cwd=ROOT, capture_output=True, text=True).stdout
