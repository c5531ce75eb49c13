"""Near misses of names in configs and words, in the messages of jsonargparse."""

import sys
from types import ModuleType

import pytest
from torch import nn

from lightning_compress.cli import main
from lightning_compress.cli.screens.suggestions import suggestion

LAST = "A word --trainer.callbacks.NAME is an argument of the last callback"


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("Expected a dot import path string: QATCalback", "; did you mean 'QATCallback'?"),
        ("Expected a dot import path string: ModelSummary", ""),
        ("Expected a dot import path string: pruning", "; did you mean 'PruningCallback'?"),
        (
            "class_path 'lightning_compress.PruningCallback': "
            'Parser key "pattern": Expected a dot import path string: 2:4',
            "; write one of Block, NM, Unstructured, as class_path with init_args if it has arguments",
        ),
        (
            "the following arguments are required: fit.model",
            "; pass --config FILE, which lightning-compress init writes",
        ),
        ("found character that cannot start any token in x", "; YAML takes no tabs: indent by spaces"),
        ("Expected a <class 'collections.abc.Sequence'>. Got value: onnx", "; write [onnx]"),
        (
            "given class_path 'lightning_compress.CompressionReport': Option 'basline.val_acc' is not accepted",
            "; did you mean 'baseline'?",
        ),
        (
            "given class_path 'lightning_compress.CompressionReport': Option 'weight_bit' is not accepted",
            f"; did you mean 'weight_bits' of QATCallback? {LAST}",
        ),
        (
            "given class_path 'lightning.pytorch.callbacks.ModelCheckpoint': Option 'sparsty' is not accepted",
            f"; did you mean 'sparsity' of PruningCallback? {LAST}",
        ),
        (
            "given class_path 'lightning.pytorch.callbacks.ModelCheckpoint': Option 'save_lst' is not accepted",
            "; did you mean 'save_last'?",
        ),
        (
            "given class_path 'lightning.pytorch.loggers.CSVLogger': Option 'save_dirr' is not accepted",
            "; did you mean 'save_dir'?",
        ),
        ("given class_path 'torch.optim.Adam': Option 'lrr' is not accepted", "; did you mean 'lr'?"),
        ("given class_path 'torch.optim.Adam': Option 'sparsity' is not accepted", ""),
        ("given class_path 'nowhere.Adam': Option 'lrr' is not accepted", ""),
        (
            "class_path 'lightning_compress.PruningCallback': Parser key \"schedule\": Option 'beginn' is not accepted",
            "; did you mean 'begin'?",
        ),
        (
            "class_path 'lightning_compress.PruningCallback': Option 'init_arg.sparsity' is not accepted",
            "; did you mean 'init_args'?",
        ),
        ("unrecognized arguments: --trainer.max_epocs=3", "; did you mean 'trainer.max_epochs'?"),
        ("unrecognized arguments: --trainr.max_epochs 3", "; did you mean 'trainer'?"),
        ("unrecognized arguments: --ckpt_pth a.ckpt", "; did you mean 'ckpt_path'?"),
        ("Subcommand 'fit' does not accept option 'trainer.max_epocs'", "; did you mean 'trainer.max_epochs'?"),
        ("Subcommand 'fit' does not accept option 'seed_everythin'", "; did you mean 'seed_everything'?"),
        ("Subcommand 'fit' does not accept option 'zzz'", ""),
    ],
)
def test_hints(message, hint):
    assert suggestion(message) == hint


def test_names_of_the_project(tmp_path, monkeypatch):
    module = ModuleType("my_project")
    module.Net = nn.Linear
    monkeypatch.setitem(sys.modules, "my_project", module)
    assert suggestion("module 'my_project' has no attribute 'Nett'") == "; did you mean 'Net'?"
    assert suggestion("module 'other' has no attribute 'Nett'") == ""
    (tmp_path / "my_project.py").touch()
    monkeypatch.chdir(tmp_path)
    assert suggestion("No module named 'my_projet'") == "; did you mean 'my_project'?"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Lightning's use of jsonargparse
def test_a_word_that_is_meant_for_an_earlier_callback(tmp_path, monkeypatch, capsys):
    (tmp_path / "c.yaml").write_text(
        "trainer: {callbacks: [{class_path: QATCallback}, {class_path: CompressionReport}]}\n"
        "model: {class_path: lightning.pytorch.demos.boring_classes.BoringModel}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lightning-compress"])
    with pytest.raises(SystemExit):
        main(["fit", "--config", "c.yaml", "--trainer.callbacks.weight_bit=4"])
    (said,) = capsys.readouterr().err.splitlines()
    assert said.endswith(f"Option 'weight_bit' is not accepted; did you mean 'weight_bits' of QATCallback? {LAST}")
