"""``init`` writes a new file and says the next steps."""

import json
import sys

import pytest
import yaml

from lightning_compress.cli import main


def test_a_config_is_written_and_never_overwritten(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["init", "faster-cpu"])
    said = capsys.readouterr().out
    assert "pip install 'lightning-compress[onnx]'" in said
    assert "name your model and data in config.yaml" in said
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["model"] == {"class_path": "my_project.MyModule"}
    checkpoint = next(one for one in config["trainer"]["callbacks"] if one["class_path"] == "ModelCheckpoint")
    assert checkpoint["init_args"] == {"save_last": True}  # a metric that nobody named may not be logged
    assert "let validation log" not in said
    with pytest.raises(SystemExit) as stopped:
        main(["init", "distil"])
    assert "need a path of a new file as --output, got 'config.yaml', which exists" in str(stopped.value.code)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == config

    main(["init", "distil", "--output", "b.yaml", "--model", "my.Net", "--metric", "val_acc", "--mode", "max"])
    said = capsys.readouterr().out
    assert "name your model" not in said
    assert "let validation log val_acc, or name another metric in b.yaml" in said
    callbacks = yaml.safe_load((tmp_path / "b.yaml").read_text())["trainer"]["callbacks"]
    assert callbacks[0]["init_args"]["teacher"]["init_args"] == {"cls": "my.Net", "path": "teacher.ckpt"}

    main(["init", "small-loss", "--output", "c.yaml"])
    said = capsys.readouterr().out
    assert "let validation log val_acc, or name another metric in c.yaml" in said
    assert "set max_drop in c.yaml, in the unit of val_acc" in said
    assert "lightning-compress fit --config c.yaml --weights trained.ckpt" in said
    budget = yaml.safe_load((tmp_path / "c.yaml").read_text())["trainer"]["callbacks"][0]["init_args"]
    assert budget == {"max_drop": 0.01, "monitor": "val_acc", "mode": "max"}

    main(["init", "small-loss", "--output", "d.yaml", "--metric", "val_loss"])
    assert "set max_drop in d.yaml, in the unit of val_loss" in capsys.readouterr().out
    assert "monitor: val_loss\n        mode: min" in (tmp_path / "d.yaml").read_text()


def test_wrong_words_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["init", "smaller"])
    assert "invalid choice: 'smaller' (choose from" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["init", "phone", "--output", "none/config.yaml"])
    assert "need --output in a folder that exists, got 'none/config.yaml'" in str(stopped.value.code)
    with pytest.raises(SystemExit) as stopped:
        main(["init", "phone", "--mode", "max"])
    assert "need --metric for --mode max, got none: a config of phone watches none" in str(stopped.value.code)
    with pytest.raises(SystemExit) as stopped:
        main(["init", "phone", "--model", "my project/Net.py"])
    said = "need --model as the dotted path of a class, such as my_project.MyModule, got 'my project/Net.py'"
    assert said in str(stopped.value.code)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("words", "step"),
    [
        ([], "1. name your model and data in"),
        (["--model", "my_project.Net"], "1. name your data in"),
        (["--model", "my_project.Net", "--data", "my_project.Data"], "1. lightning-compress plan"),
    ],
)
def test_the_first_step_names_what_is_still_to_be_named(words, step, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["init", "smaller-file", *words])
    assert step in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_the_example_of_a_goal_trains_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_project", raising=False)
    monkeypatch.setattr("sys.path", list(sys.path))
    main(["init", "smaller-file", "--example"])
    said = capsys.readouterr().out
    assert "config.yaml and my_project.py are written. Next:\n  1. lightning-compress plan" in said
    main(["fit", "--config", "config.yaml", "--trainer.max_epochs", "4", "--trainer.accelerator", "cpu"])
    [report] = tmp_path.glob("runs/**/report.json")
    metrics = json.loads(report.read_text())["metrics_after"]
    assert metrics["val_acc"] > 0.5  # by chance it is an eighth
    monkeypatch.delitem(sys.modules, "my_project", raising=False)

    before = (tmp_path / "my_project.py").read_text()
    for words, told in {
        "": "need a folder without my_project.py for --example, got one with it, which stays as it is",
        "--data my.Data": "need --example without --model and --data, whose place it takes, got --data my.Data",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            main(["init", "phone", "--example", "--output", "b.yaml", *words.split()])
        assert told in str(stopped.value.code)
    assert (tmp_path / "my_project.py").read_text() == before
    assert not (tmp_path / "b.yaml").exists()
