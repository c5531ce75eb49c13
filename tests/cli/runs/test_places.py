"""Errors end with the file, the line and the key of the config that they are about."""

import lightning as L
import pytest
import torch
from torch import nn

from lightning_compress.cli.commands import main

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(L.LightningModule):
    """Has its own data."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 8)

    def training_step(self, batch, batch_idx):
        return self.net(batch).mean()

    def train_dataloader(self):
        return torch.utils.data.DataLoader(torch.ones(8, 4), 4)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


CONFIG = f"""\
model: {{class_path: {__name__}.Net}}
trainer:
  logger: false
  max_epochs: 1
  callbacks:
    - class_path: PruningCallback
      init_args:
        sparsity: 0.5
        schedule:
          class_path: Linear
          init_args: {{begin: 0.1, until: 0.7}}
        include: ["net.weight"]
"""
CASES = {
    ("sparsity: 0.5", "sparsity: high"): "line 8, trainer.callbacks.0.sparsity",
    ("sparsity: 0.5", "sparsity: 1.5"): "line 8, trainer.callbacks.0.sparsity",
    ("sparsity: 0.5", "sparsty: 0.5"): "line 8, trainer.callbacks.0.sparsty",
    ("schedule:", "criterion: taylr\n        schedule:"): "line 9, trainer.callbacks.0.criterion",
    ("until: 0.7", "until: 0.05"): "line 11, trainer.callbacks.0.schedule.begin",
    ("net.weight", "nope"): "line 12, trainer.callbacks.0.include",
    ("max_epochs", "max_epoch"): "line 4, trainer.max_epoch",
    ("model:", "modell:"): "line 1, modell",
    (".Net", ".Nett"): "line 1, model",
}


def refusal(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *words])
    return f"{stopped.value.code} {capsys.readouterr().err}".strip()


@pytest.mark.parametrize("change", CASES)
def test_an_error_names_file_line_and_key(change, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text(CONFIG.replace(*change))
    assert refusal(["--config", "wrong.yaml"], capsys).endswith(f"(in wrong.yaml, {CASES[change]})")


@pytest.mark.parametrize("key", ["spars(ity", "a[", "*x", "trainer.callbacks"])
def test_a_key_may_be_any_text(key, tmp_path, monkeypatch, capsys):
    """The original error is told whatever stands beside it."""
    monkeypatch.chdir(tmp_path)
    more = f'        sparsity: 1.5\n        "{key}": 1\n'
    (tmp_path / "wrong.yaml").write_text(CONFIG.replace("        sparsity: 0.5\n", more))
    said = refusal(["--config", "wrong.yaml"], capsys)
    assert "lightning-compress: error: " in said
    assert key in said or "sparsity" in said
    (tmp_path / "aside.yaml").write_text(CONFIG.replace("sparsity: 0.5", "sparsity: 1.5") + f'"{key}": 1\n')
    assert "lightning-compress: error: " in refusal(["--config", "aside.yaml"], capsys)


def test_an_error_of_yaml_names_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(CONFIG)
    (tmp_path / "wrong.yaml").write_text("trainer:\n\tmax_epochs: 1\n")
    assert "in wrong.yaml, line 2, column 1" in refusal(["--config", "good.yaml", "--config", "wrong.yaml"], capsys)


def test_of_two_configs_the_one_with_the_key_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text(CONFIG.replace("0.5", "1.5"))
    (tmp_path / "other.yaml").write_text("trainer: {max_epochs: 2}\n")
    said = refusal(["--config=wrong.yaml", "-c", "other.yaml"], capsys)
    assert said.endswith("(in wrong.yaml, line 8, trainer.callbacks.0.sparsity)")


def test_a_value_of_the_command_line_stands_in_no_config(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(CONFIG)
    said = refusal(["--config", "good.yaml", "--trainer.callbacks.0.sparsity", "7"], capsys)
    assert said.endswith("need 0 < sparsity < 1, got sparsity=7.0 (in good.yaml, line 6, trainer.callbacks.0)")


def test_a_key_of_the_command_line_stands_in_no_config(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(CONFIG)
    said = refusal(["--config", "good.yaml", "--trainer.callbacks.sparsty", "0.5"], capsys)
    assert said.endswith("Option 'sparsty' is not accepted; did you mean 'sparsity'?")
