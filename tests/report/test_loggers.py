"""Loggers get the report: TensorBoard and CSV themselves, trackers of other packages as stand-ins."""

import csv
import sys
from types import ModuleType, SimpleNamespace

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_compress.report.loggers import numbers_of, publish
from tests.support.reports import comparison_of


@pytest.fixture
def folder(tmp_path):
    """A report as it is written; its picture is one pixel."""
    from matplotlib.image import imsave

    (tmp_path / "run" / "pictures").mkdir(parents=True)
    for name in ("report.html", "report.md", "report.json", "model.lcz"):
        (tmp_path / "run" / name).write_text(name)
    imsave(tmp_path / "run" / "pictures" / "bytes.png", [[0.5]])
    return tmp_path / "run"


COMPARISON = comparison_of(250, {"val_acc": 0.8}, files={"model.lcz": 250}, latencies=(2e-3, 1e-3))
FILES = ["report.html", "report.md", "report.json", "model.lcz", "pictures/bytes.png"]


def test_numbers_have_names():
    numbers = numbers_of(COMPARISON)
    assert numbers["compression_report/times_smaller"] == 4.0
    assert numbers["compression_report/model.lcz_bytes"] == 250
    assert numbers["compression_report/sparsity"] == 0.75
    assert numbers["compression_report/latency_ms/PyTorch_on_cpu"] == 1.0


def test_tensorboard_and_csv(folder, tmp_path):
    board, table = TensorBoardLogger(tmp_path / "board"), CSVLogger(tmp_path / "table")
    publish([board, table], COMPARISON, folder)
    board.finalize("success")
    read = EventAccumulator(board.log_dir).Reload()
    assert read.Scalars("compression_report/archive_bytes")[0].value == 250
    assert read.Tags()["images"] == ["compression/bytes"]
    assert b"Compression report" in read.Tensors("compression/report/text_summary")[0].tensor_proto.string_val[0]
    with open(tmp_path / "table" / "lightning_logs" / "version_0" / "metrics.csv") as file:
        assert float(list(csv.DictReader(file))[-1]["compression_report/archive_bytes"]) == 250


def test_mlflow(folder):
    kept, files = {}, []
    logger = SimpleNamespace(
        run_id="r7",
        experiment=SimpleNamespace(
            log_artifact=lambda run, path, place: files.append((run, place, path.rpartition("/")[2]))
        ),
        log_metrics=lambda numbers, step: kept.update(numbers),
        save=lambda: None,
    )
    publish([logger], COMPARISON, folder)
    assert kept == numbers_of(COMPARISON)
    assert ("r7", "compression", "model.lcz") in files
    assert ("r7", "compression/pictures", "bytes.png") in files
    assert len(files) == len(FILES)


def test_weights_and_biases(folder, monkeypatch):
    class Artifact:
        def __init__(self, name, **options):
            self.name, self.type, self.files = name, options["type"], []

        def add_file(self, path, name):
            self.files.append(name)

    wandb = ModuleType("wandb")
    wandb.Artifact = Artifact
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    logged, pictures, summary = [], [], {}
    logger = SimpleNamespace(
        experiment=SimpleNamespace(summary=summary, log_artifact=logged.append, id="abc"),
        log_image=lambda key, images: pictures.extend(images),
    )
    publish([logger], COMPARISON, folder)
    assert summary == numbers_of(COMPARISON)
    assert [path.rpartition("/")[2] for path in pictures] == ["bytes.png"]
    assert (logged[0].name, logged[0].type, logged[0].files) == ("compression-abc", "model", FILES)


def test_a_logger_that_fails_is_named(folder):
    def fail(numbers, step):
        raise ConnectionError("no server\nat all")

    with pytest.warns(UserWarning, match=r"SimpleNamespace does not take the report: ConnectionError: no server$"):
        publish([SimpleNamespace(log_metrics=fail)], COMPARISON, folder)
