"""Headlines: the sentences that open a report. A loss stands before every gain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from lightning_compress.messages import listed
from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.measures.profiles import LayerProfile

__all__ = ["direction", "headlines", "is_worse"]

# Usual words in the names of metrics.
_LOWER = re.compile(r"\b(cer|error|err|fid|loss|mae|mape|mse|nll|perplexity|ppl|rmse|smape|wer)\b")
_HIGHER = re.compile(r"\b(acc|accuracy|ap|auc|auroc|bleu|dice|f1|iou|kappa|map|precision|psnr|r2|recall|rouge|ssim)\b")


def headlines(comparison: Comparison) -> list[str]:
    """The losses of a comparison, one sentence each, and then its size in one sentence."""
    before, after = comparison.before, comparison.after
    size = (
        f"{after.archive_bytes:,} bytes in the archive instead of {before.archive_bytes:,}, "
        f"{after.parameters:,} parameters instead of {before.parameters:,}, {after.sparsity:.1%} of them zeros."
    )
    return [
        *_failed(comparison),
        *_dead(comparison),
        *_unfinished(comparison),
        *_unvalidated(comparison),
        *_worse(comparison),
        size,
    ]


def _failed(comparison: Comparison) -> list[str]:
    return [f"LOSS: {name} was not written: {error}" for name, error in comparison.failures.items()]


def _dead(comparison: Comparison) -> list[str]:
    dead = [
        after.name
        for before, after in comparison.layers
        if after and _is_dead(after) and not (before and _is_dead(before))
    ]
    if not dead:
        return []
    return [f"LOSS: every weight of {listed(dead)} is zero, so nothing of the input passes there."]


def _is_dead(layer: LayerProfile) -> bool:
    return len(layer.shape) > 1 and layer.parameters > 0 and layer.nonzeros == 0


def _unfinished(comparison: Comparison) -> list[str]:
    strengths = {name: float(report.get("strength", 1.0)) for name, report in comparison.methods.items()}
    return [
        f"LOSS: the run ended before the schedule of {name}, at strength {strength:.2f} of 1."
        for name, strength in strengths.items()
        if strength < 1
    ]


def _unvalidated(comparison: Comparison) -> list[str]:
    if not comparison.unvalidated:
        return []
    return [
        f"LOSS: the last validation was {comparison.unvalidated:,} steps before the end of the run, so the metrics are "
        "those of an earlier model."
    ]


def _worse(comparison: Comparison) -> list[str]:
    before, after = comparison.metrics_before, comparison.metrics_after
    return [
        f"LOSS: {name} {'fell' if after[name] < old else 'rose'} from {old:.4f} to {after[name]:.4f}."
        for name, old in before.items()
        if name in after and is_worse(name, old, after[name], comparison.modes)
    ]


def is_worse(name: str, before: float, after: float, modes: Mapping[str, str]) -> bool:
    """Whether a metric became worse, at the four digits that are shown.

    Args:
        name: name of the metric.
        before: its value before.
        after: its value after.
        modes: name -> ``"min"`` or ``"max"``, of the metrics that a monitor watches. The direction of any other is
            known from a usual word in its name: a loss falls, an accuracy rises.

    >>> is_worse("val_acc", 0.92, 0.88, {}), is_worse("val/loss", 0.4, 0.3, {}), is_worse("speed", 1.0, 0.5, {})
    (True, False, False)
    """
    mode = direction(name, modes)
    if mode is None or f"{before:.4f}" == f"{after:.4f}":
        return False
    return after > before if mode == "min" else after < before


def direction(name: str, modes: Mapping[str, str]) -> Literal["min", "max"] | None:
    """Whether a metric is better when it is smaller (``"min"``) or larger (``"max"``); None if nothing says so.

    Args:
        name: name of the metric.
        modes: name -> ``"min"`` or ``"max"``, of the metrics that a monitor watches; see :func:`is_worse`.

    >>> direction("val_acc", {}), direction("val_acc", {"val_acc": "min"}), direction("speed", {})
    ('max', 'min', None)
    """
    words = name.lower().replace("_", " ")
    lower = modes[name] == "min" if name in modes else bool(_LOWER.search(words))
    higher = modes[name] == "max" if name in modes else bool(_HIGHER.search(words))
    return None if lower == higher else "min" if lower else "max"
