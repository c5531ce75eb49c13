"""Loggers: the final numbers, tables and pictures of a report, for the loggers of a Trainer.

Each logger is known by the attributes that it has: a new one with the interface of one of these needs no code here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.views.outputs import PICTURES
from lightning_compress.report.views.tables import markdown

__all__ = ["numbers_of", "publish"]

_GROUP = "compression"
_NUMBERS = "compression_report"  # methods log fractions in training, under names of the group


def publish(loggers: Iterable[Any], comparison: Comparison, folder: Path) -> None:
    """Give a report to the loggers: numbers to all; text, pictures and files to those that take them.

    A warning names a logger that fails: no run is lost for a log.

    =================  =====================================================================
    any                numbers, as ``compression_report/archive_bytes``
    TensorBoard        numbers, the tables as text, pictures
    Weights & Biases   numbers in the summary, pictures, an artifact with all files
    MLflow             metrics, all files as artifacts
    CSV                a last row with the numbers
    =================  =====================================================================

    Args:
        loggers: of the Trainer.
        comparison: the result of the report.
        folder: of the report, its pictures and the models.
    """
    numbers = numbers_of(comparison)
    names = ["report.html", "report.md", "report.json", *comparison.files]
    files = [folder / name for name in names if (folder / name).exists()]
    files += sorted((folder / PICTURES).glob("*.png"))
    for logger in loggers:
        _give(logger, comparison, numbers, files)


def _give(logger: Any, comparison: Comparison, numbers: dict[str, float], files: list[Path]) -> None:
    try:
        for attempt in _attempts(logger):
            attempt(logger, comparison, numbers, files)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        warnings.warn(f"{type(logger).__name__} does not take the report: {reason}", stacklevel=3)


def numbers_of(comparison: Comparison) -> dict[str, float]:
    """The final numbers by name, without those that are not finite."""
    before, after = comparison.before, comparison.after
    found: dict[str, float] = {
        "archive_bytes": after.archive_bytes,
        "dense_archive_bytes": before.archive_bytes,
        "state_bytes": after.state_bytes,
        "parameters": after.parameters,
        "sparsity": after.sparsity,
        **{f"{name}_bytes": size for name, size in comparison.files.items()},
    }
    if after.archive_bytes:
        found["times_smaller"] = before.archive_bytes / after.archive_bytes
    if before.macs and after.macs:
        found |= {"macs": after.macs.total, "dense_macs": before.macs.total}
    for place, (old, new) in comparison.places.items():
        name = place.replace(" ", "_")
        found |= {f"latency_ms/{name}": 1e3 * new.median, f"dense_latency_ms/{name}": 1e3 * old.median}
    for name, old_metric in comparison.metrics_before.items():
        metric = comparison.metric(name)
        if metric is not None:
            found[f"change/{name}"] = metric - old_metric
    return {f"{_NUMBERS}/{name}": float(value) for name, value in found.items() if math.isfinite(value)}


_Attempt = Callable[[Any, Comparison, dict[str, float], list[Path]], None]


def _attempts(logger: Any) -> list[_Attempt]:
    experiment = getattr(logger, "experiment", None)
    if hasattr(experiment, "summary") and hasattr(experiment, "log_artifact"):
        return [_to_wandb]
    if hasattr(experiment, "log_artifact") and hasattr(logger, "run_id"):
        return [_log_numbers, _to_mlflow]
    if hasattr(experiment, "add_text") and hasattr(experiment, "add_image"):
        return [_log_numbers, _to_tensorboard]
    return [_log_numbers]


def _log_numbers(logger: Any, comparison: Comparison, numbers: dict[str, float], files: list[Path]) -> None:
    logger.log_metrics(numbers, step=comparison.steps)
    logger.save()


def _to_tensorboard(logger: Any, comparison: Comparison, numbers: dict[str, float], files: list[Path]) -> None:
    logger.experiment.add_text(f"{_GROUP}/report", markdown(comparison, grouped=True), comparison.steps)
    for path in _pictures(files):
        from matplotlib.image import imread

        logger.experiment.add_image(f"{_GROUP}/{path.stem}", imread(path), comparison.steps, dataformats="HWC")


def _to_wandb(logger: Any, comparison: Comparison, numbers: dict[str, float], files: list[Path]) -> None:
    run = logger.experiment
    run.summary.update(numbers)
    for path in _pictures(files):
        logger.log_image(key=f"{_GROUP}/{path.stem}", images=[str(path)])
    from wandb import Artifact  # the logger needs it

    artifact = Artifact(f"{_GROUP}-{run.id}", type="model", metadata=numbers)
    for path in files:
        artifact.add_file(str(path), name=_place(path))
    run.log_artifact(artifact)


def _to_mlflow(logger: Any, comparison: Comparison, numbers: dict[str, float], files: list[Path]) -> None:
    for path in files:
        folder = str(Path(_GROUP) / Path(_place(path)).parent)
        logger.experiment.log_artifact(logger.run_id, str(path), folder)


def _pictures(files: Iterable[Path]) -> list[Path]:
    return [path for path in files if path.suffix == ".png"]


def _place(path: Path) -> str:
    """The name of a file in an artifact: pictures stay in their folder."""
    return f"{path.parent.name}/{path.name}" if path.parent.name == PICTURES else path.name
