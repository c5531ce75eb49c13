"""The configs of the examples run as they stand, and end in the files that they ask for."""

from pathlib import Path

import pytest

from lightning_compress.cli import main

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Lightning's use of jsonargparse
    pytest.mark.filterwarnings("ignore:ONNX Runtime computes"),
]
EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIGS = sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.yaml"))


@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_config_prints_is_a_config_again(name, tmp_path, monkeypatch, capsys):
    printed = []
    for path in (EXAMPLES / name, tmp_path / "printed.yaml"):
        monkeypatch.setattr("sys.argv", ["lightning-compress", "fit", "--config", str(path), "--print_config"])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 0
        printed.append(capsys.readouterr().out)
        (tmp_path / "printed.yaml").write_text(printed[-1])
    assert printed[0] == printed[1]
    assert f"examples/{name}`" in (EXAMPLES / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "fewer"),
    [("digits/quantized.yaml", []), ("text/config.yaml", ["--data.count=60"]), ("time_series/config.yaml", [])],
)
def test_from_yaml_to_onnx(name, fewer, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_compress.timing._SECONDS", 1e-4)
    short = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=5", "--trainer.enable_progress_bar=false"]
    folder = f"--trainer.logger.save_dir={tmp_path}"
    words = ["fit", "--config", str(EXAMPLES / name), *short, *fewer, folder, "--trainer.log_every_n_steps=1"]
    monkeypatch.setattr("sys.argv", ["lightning-compress", *words])
    main()
    written = {path.name for path in tmp_path.rglob("*.*")}
    assert {"model.onnx", "model.lcz", "report.md", "report.json"} <= written
    (report,) = tmp_path.rglob("report.md")
    assert "| model.onnx in ONNX Runtime |" in report.read_text()
