"""The configs of the examples run as they stand, and end in the files that they ask for."""

from pathlib import Path

import pytest

from lightning_compress.cli import main
from tests.support.cells import write_cells
from tests.support.encoders import write_encoder
from tests.support.fashion import write_files

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


NETWORK = "--model.init_args.model.init_args"
REPORT = {"report.md", "report.json", "model.lcz"}
ONNX = {*REPORT, "model.onnx"}
WRITTEN = {
    "adapters/config.yaml": ONNX,
    "classical/linear_svm.yaml": {"last.ckpt"},
    "classical/logistic_regression.yaml": {"last.ckpt"},
    "digits/combined.yaml": {*REPORT, "best.ckpt", "last.ckpt"},
    "digits/config.yaml": {*REPORT, "best.ckpt", "last.ckpt"},
    "digits/quantized.yaml": ONNX,
    "digits/sweep.yaml": {*REPORT, "best.ckpt", "last.ckpt"},
    "distillation/student.yaml": {"student.ckpt"},
    "distillation/teacher.yaml": {"teacher.ckpt"},
    "fashion_mnist/config.yaml": {*REPORT, "last.ckpt"},
    "fashion_mnist/quantized.yaml": ONNX,
    "single_cells/config.yaml": REPORT,
    "text/config.yaml": ONNX,
    "time_series/config.yaml": ONNX,
}
"""Config -> names of files that its run writes."""

FEWER = {
    "adapters/config.yaml": ["--data.count=60", "--data.encoder=encoder", f"{NETWORK}.encoder=encoder"],
    "single_cells/config.yaml": ["--data.path=cells.h5ad"],
    "text/config.yaml": ["--data.count=60"],
}
SHORT = [
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=5",
    "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=1",
]


def run(name, monkeypatch):
    """Run a config for a few batches in the current folder."""
    more = ["--data.batch_size=8"] if name.split("/")[0] in ("fashion_mnist", "distillation") else []
    words = ["fit", "--config", str(EXAMPLES / name), *SHORT, *more, *FEWER.get(name, [])]
    monkeypatch.setattr("sys.argv", ["lightning-compress", *words])
    main()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to run in, with a few images and cells; no time is spent on exact latencies."""
    write_files(tmp_path / "data" / "fashion-mnist")
    write_cells(tmp_path / "cells.h5ad")
    write_encoder(tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lightning_compress.timing._SECONDS", 1e-4)
    return tmp_path


def test_every_config_is_run():
    assert list(WRITTEN) == CONFIGS


@pytest.mark.filterwarnings("ignore:the integer kernels of ONNX Runtime on this CPU")  # it may have no VNNI
@pytest.mark.filterwarnings("ignore:Checkpoint directory")  # the student's is the teacher's
@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_writes_its_files(name, folder, monkeypatch):
    if name == "distillation/student.yaml":
        run("distillation/teacher.yaml", monkeypatch)
    run(name, monkeypatch)
    written = {path.name for path in (folder / "runs").rglob("*.*")}
    assert WRITTEN[name] <= written
    if "model.onnx" in WRITTEN[name]:
        (report,) = folder.rglob("report.md")
        assert "| model.onnx in ONNX Runtime |" in report.read_text()


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_is_planned(name, folder, monkeypatch, capsys):
    """Without a teacher and without training; the plan names the callbacks that compress."""
    if name == "distillation/student.yaml":
        run("distillation/teacher.yaml", monkeypatch)
        capsys.readouterr()
    words = ["plan", "--config", str(EXAMPLES / name), *FEWER.get(name, [])]
    monkeypatch.setattr("sys.argv", ["lightning-compress", *words])
    main()
    out = capsys.readouterr().out
    asked = [kind for kind in ("PruningCallback", "QATCallback") if kind in (EXAMPLES / name).read_text()]
    assert all(f" {kind}: " in out for kind in asked)
    assert ("total, with buffers" in out) == bool(asked)
