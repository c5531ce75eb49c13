"""Reports as ``report.json`` holds them, of runs that nobody has trained."""

import json
import math
from pathlib import Path
from typing import Any

from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.measures.deployments import Deployment
from lightning_compress.report.measures.profiles import LayerProfile, ModelProfile
from lightning_compress.report.views.outputs import write
from lightning_compress.report.views.tables import as_dict
from lightning_compress.timing import Latency


def model(size: int, nonzeros: int) -> ModelProfile:
    layer = LayerProfile("weight", (4, 5), nonzeros=nonzeros, distinct=9, state_bytes=80, archive_bytes=size)
    return ModelProfile((layer,), state_bytes=80, archive_bytes=size)


def pair(medians: tuple[float, float]) -> tuple[Latency, Latency]:
    before, after = (Latency(median, 0.9 * median, 1.1 * median, "cpu") for median in medians)
    return before, after


def write_report(folder: Path, *, size: int, **numbers: Any) -> Path:
    """Write the report of a run into a new folder; its dense model takes 1,000 bytes."""
    folder.mkdir(parents=True)
    write(comparison_of(size, **numbers), folder)
    return folder / "report.json"


def write_numbers(folder: Path, *, size: int, **numbers: Any) -> None:
    """Write ``report.json`` alone, without the pictures."""
    (folder / "report.json").write_text(json.dumps(as_dict(comparison_of(size, **numbers))))


def comparison_of(
    size: int,
    metrics: dict[str, float | None] | None = None,
    modes: dict[str, str] | None = None,
    files: dict[str, int] | None = None,
    failures: dict[str, str] | None = None,
    latencies: tuple[float, float] | None = None,
    in_onnx_runtime: tuple[float, float] | None = None,
    unvalidated: int = 0,
    changed: bool = False,
) -> Comparison:
    metrics = {"val_acc": 0.9} if metrics is None else metrics
    deployments = ()
    if in_onnx_runtime:
        deployments = (
            Deployment("model.onnx", "ONNX Runtime", 7, 70, 1, (), pair(in_onnx_runtime), None, 64, None, 0.0),
        )
    return Comparison(
        before=model(1000, 20),
        after=model(size, 5),
        metrics_after={name: math.nan if value is None else value for name, value in metrics.items()},
        unvalidated=unvalidated,
        changed=changed,
        modes=modes or {},
        files=files or {},
        failures=failures or {},
        latencies=pair(latencies) if latencies else None,
        methods={"PruningCallback": {"method": "0.75 sparse", "strength": 1.0}},
        deployments=deployments,
    )
