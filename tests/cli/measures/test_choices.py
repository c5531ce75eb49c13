"""The choice of ``sensitivity``: a config whose callbacks are each for the layers that it suits."""

import json
import math

import pytest
import yaml

from lightning_compress import CompressionReport, PruningCallback, QATCallback
from lightning_compress.cli import main
from lightning_compress.cli.lightning import CompressionCLI
from lightning_compress.cli.measures.choices import write_choice
from lightning_compress.cli.runs.prepared import Prepared
from lightning_compress.pruning import criteria
from lightning_compress.search.measuring.results import LayerSensitivity, Sensitivity
from tests.support.toys import Digits

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Lightning's use of jsonargparse

STRONG, WEAK = PruningCallback(0.9, criterion=criteria.taylor), QATCallback(8, activation_bits=None)
WRITTEN = [
    (
        STRONG,
        {
            "class_path": "lightning_compress.pruning.callback.PruningCallback",
            "init_args": {"sparsity": 0.9, "criterion": "taylor", "scope": "global", "exclude": []},
        },
    ),
    (WEAK, {"class_path": "lightning_compress.QATCallback", "init_args": {"weight_bits": 8, "activation_bits": None}}),
    (CompressionReport("run"), {"class_path": "lightning_compress.CompressionReport", "init_args": {"dirpath": "run"}}),
    (Digits(), {"class_path": "tests.support.toys.Digits"}),  # any other object: its dotted path stays
]


def found(**drops):
    """Layer -> the drops of the strong method, which leaves 10 bytes, and of the weak one, which leaves 100."""
    rows = [
        LayerSensitivity(layer, repr(method), "", 0.0, drop, 0.0, 0.0, 0.0, size)
        for layer, pair in drops.items()
        for method, drop, size in zip((STRONG, WEAK), pair, (10, 100), strict=True)
    ]
    return Sensitivity(tuple(rows), 0.0, "min", 1, 1)


def test_each_layer_gets_the_method_that_makes_it_smallest(tmp_path):
    path = tmp_path / "chosen.yaml"
    write_choice(found(first=(0.5, 0.0), second=(0.01, 0.0), third=(9.0, 3.0)), 0.01, WRITTEN, str(path))
    assert yaml.safe_load(path.read_text()) == {
        "trainer": {
            "callbacks": [
                {
                    "class_path": "PruningCallback",
                    "init_args": {"sparsity": 0.9, "criterion": "taylor", "include": ["second"]},
                },
                {"class_path": "QATCallback", "init_args": {"activation_bits": None, "include": ["first"]}},
                {"class_path": "CompressionReport", "init_args": {"dirpath": "run"}},
                {"class_path": "tests.support.toys.Digits"},
            ]
        }
    }
    assert "# Each layer with the callback that makes it smallest, at a drop of at most 0.01" in path.read_text()


def test_a_method_without_layers_is_left_out(tmp_path):
    write_choice(found(first=(9.0, 0.0)), 0.5, WRITTEN, str(tmp_path / "chosen.yaml"))
    chosen = yaml.safe_load((tmp_path / "chosen.yaml").read_text())["trainer"]["callbacks"]
    assert [entry["class_path"] for entry in chosen] == [
        "QATCallback",
        "CompressionReport",
        "tests.support.toys.Digits",
    ]


def test_a_drop_that_no_layer_keeps_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"need --drop of at least 0\.25, the smallest drop of a layer alone, got 0\.1$"
    ):
        write_choice(found(first=(9.0, 0.25)), 0.1, WRITTEN, str(tmp_path / "chosen.yaml"))
    assert not (tmp_path / "chosen.yaml").exists()


CONFIG = """\
seed_everything: 0
model: {class_path: examples.digits.DigitsClassifier}
data: {class_path: examples.digits.DigitsData}
trainer:
  max_epochs: 2
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
"""
METHODS = """\
    - {class_path: PruningCallback, init_args: {sparsity: 0.95, schedule: {class_path: Cubic, init_args: {until: 0.5}}}}
    - {class_path: QATCallback, init_args: {weight_bits: 3, activation_bits: null}}
    - {class_path: CompressionReport, init_args: {dirpath: run}}
"""


def test_a_choice_is_trained_behind_its_config(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dense.yaml").write_text(
        CONFIG.replace("  callbacks:\n", "").replace("checkpointing: false", "checkpointing: true")
    )
    (tmp_path / "config.yaml").write_text(CONFIG + METHODS)
    main(["fit", "--config", "dense.yaml"])
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    capsys.readouterr()
    words = ["--ckpt_path", str(checkpoint), "--metric", "val_acc", "--mode", "max", "--examples", "300", "--json"]
    main(["sensitivity", "--config", "config.yaml", *words, "--drop", "0.02", "--choice", "chosen.yaml"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    fitting = sorted((row["archive_bytes"], row["layer"], row["method"]) for row in rows if row["drop"] <= 0.02)
    expected = {}
    for _, layer, method in fitting:
        expected.setdefault(layer, method.partition("(")[0])
    assert expected
    chosen = yaml.safe_load((tmp_path / "chosen.yaml").read_text())["trainer"]["callbacks"]
    given = {layer: one["class_path"] for one in chosen for layer in one.get("init_args", {}).get("include", ())}
    assert given == expected
    main(["fit", "--config", "config.yaml", "--config", "chosen.yaml"])
    after = json.loads((tmp_path / "run" / "report.json").read_text())["after"]["layers"]
    for layer in after:
        pruned = layer["nonzeros"] <= 0.3 * math.prod(layer["shape"])
        assert pruned == (expected.get(layer["name"]) == "PruningCallback")
        assert (layer["bits"] == 3) == (expected.get(layer["name"]) == "QATCallback")


def test_functions_and_none_are_written_as_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    taylor = METHODS.replace("sparsity: 0.95", "criterion: taylor, sparsity: 0.95")
    (tmp_path / "config.yaml").write_text(CONFIG + taylor)
    prepared = Prepared.of(["--config", "config.yaml"], CompressionCLI)
    (pruning, words), (_, few), (_, report) = prepared.written()
    assert repr(pruning) == "PruningCallback(sparsity=0.95, criterion=taylor, schedule=Cubic(begin=0.0, until=0.5))"
    assert words["init_args"]["criterion"] == "lightning_compress.pruning.criteria.taylor"
    assert few["init_args"]["activation_bits"] is None
    assert report["init_args"]["dirpath"] == "run"


def test_both_words_belong_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG + METHODS)
    for words in (["--drop", "0.1"], ["--choice", "chosen.yaml"]):
        with pytest.raises(SystemExit, match="need --drop and --choice together"):
            main(["sensitivity", "--config", "config.yaml", *words])
    with pytest.raises(SystemExit, match="need --choice in a folder that exists, got 'gone/chosen.yaml'"):
        main(["sensitivity", "--config", "config.yaml", "--drop", "0.1", "--choice", "gone/chosen.yaml"])
