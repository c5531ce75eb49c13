"""Headlines: the sentences that open a report. A loss stands before every gain."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Literal

from lightning_compress.messages import listed, plain
from lightning_compress.report.comparisons import INCOMING, Comparison
from lightning_compress.report.measures.deployments import Deployment
from lightning_compress.report.measures.profiles import LayerProfile

__all__ = ["KINDS", "direction", "headlines", "is_worse", "kind_of"]

KINDS = {"LOSS": "red", "COST": "yellow", "SMALLER": "green", "FASTER": "green", "KEPT": "green"}
"""First word of a headline -> its color."""

_SHARP = 0.02  # of the metric before: a smaller loss is a cost, not an alarm

_LEARNED = 0.1  # of the metric as it came into fit: a larger gain is that of a model that was still to be trained

# Usual words in the names of metrics.
_LOWER = re.compile(r"\b(cer|error|err|fid|loss|mae|mape|mse|nll|perplexity|ppl|rmse|smape|wer)\b")
_HIGHER = re.compile(r"\b(acc|accuracy|ap|auc|auroc|bleu|dice|f1|iou|kappa|map|precision|psnr|r2|recall|rouge|ssim)\b")


def headlines(comparison: Comparison) -> list[str]:
    """The losses of a comparison, one sentence each, then its costs and its gains.

    The first word is one of :data:`KINDS`; the size of a model that did not become smaller has none.
    """
    said = [
        *_failed(comparison),
        *_dead(comparison),
        *_unfinished(comparison),
        *_missed(comparison),
        *_unvalidated(comparison),
        *_unlogged(comparison),
        *_metrics(comparison),
        *_speed(comparison),
        _size(comparison),
        *_teachers(comparison),
    ]
    order = [*KINDS, ""]
    return sorted(map(plain, said), key=lambda line: order.index(kind_of(line)))


def kind_of(headline: str) -> str:
    """The first word of a headline if it is one of :data:`KINDS`, else nothing.

    >>> kind_of("LOSS: val_acc fell from 0.9 to 0.1."), kind_of("30 bytes in the archive")
    ('LOSS', '')
    """
    word = headline.partition(":")[0]
    return word if word in KINDS else ""


def _failed(comparison: Comparison) -> list[str]:
    return [f"LOSS: {name} was not written: {' '.join(error.split())}" for name, error in comparison.failures.items()]


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


def _missed(comparison: Comparison) -> list[str]:
    """The wishes that did not come true; a callback and the one that it brings tell of the same."""
    missed = (str(report["missed"]) for report in comparison.methods.values() if report.get("missed"))
    return [f"LOSS: {said}." for said in dict.fromkeys(missed)]


def _unvalidated(comparison: Comparison) -> list[str]:
    if comparison.unvalidated:
        return [
            f"LOSS: the last validation was {comparison.unvalidated:,} steps before the end of the run, so the metrics "
            "are those of an earlier model."
        ]
    if comparison.changed and comparison.metrics_after:
        return [
            "LOSS: the last validation saw other weights than those that fit has left, so the metrics are those of "
            "another model: validate this one by trainer.validate(module)."
        ]
    return []


def _unlogged(comparison: Comparison) -> list[str]:
    """The metrics of a baseline that this run has not logged, each with the name that was meant."""
    if comparison.compared_with == INCOMING:
        return []
    after = comparison.metrics_after
    said = []
    for name in comparison.metrics_before.keys() - after.keys():
        near = difflib.get_close_matches(name, after.keys() - comparison.metrics_before.keys(), n=1, cutoff=0.5)
        meant = f": did you mean {near[0]}?" if near else "."
        said.append(f"LOSS: no validation logged {name}, which baseline has{meant}")
    return sorted(said)


def _metrics(comparison: Comparison) -> list[str]:
    """The cost in metrics; those whose direction nothing says have no headline."""
    said = [f"LOSS: {name} is not finite." for name, new in comparison.metrics_after.items() if not math.isfinite(new)]
    for name, old in comparison.metrics_before.items():
        new = comparison.metrics_after.get(name, math.nan)
        if not math.isfinite(new) or direction(name, comparison.modes) is None:
            continue
        numbers = f"from {old:.4f} to {new:.4f}."
        if is_worse(name, old, new, comparison.modes):
            word = "LOSS" if not abs(new - old) < _SHARP * abs(old) else "COST"
            said.append(f"{word}: {name} {'fell' if new < old else 'rose'} {numbers}")
        elif comparison.compared_with != INCOMING or abs(new - old) <= _LEARNED * abs(old):
            same = f"{old:.4f}" == f"{new:.4f}"
            said.append(f"KEPT: {name} {f'stayed at {new:.4f}.' if same else f'went {numbers}'}")
    return said


def _speed(comparison: Comparison) -> list[str]:
    """The speed where the model ships; a file that is measurably slower than the dense one is a loss."""
    said = [line for found in comparison.deployments for line in _speed_of(found)]
    if not comparison.quantized and comparison.latencies:
        before, after = comparison.latencies
        if after.upper < before.lower:
            said.append(f"FASTER: {before.ratio(after):.2f}x in PyTorch on {after.device}.")
    return said


def _speed_of(found: Deployment) -> list[str]:
    pairs = {"the example": found.latencies, f"{found.samples:,} samples": found.batch_latencies}
    told = {name: pair for name, pair in pairs.items() if pair}
    fast = {name: pair for name, pair in told.items() if pair[1].upper < pair[0].lower}
    slow = {name: pair for name, pair in told.items() if pair[1].lower > pair[0].upper}
    same = {name: pair for name, pair in told.items() if name not in fast | slow}
    said = []
    for some, word, rest in ((slow, "slower", ""), (same, "no faster", "no difference was measured: ")):
        if some:
            numbers = ", ".join(f"{1e3 * old.median:.3f} → {1e3 * new.median:.3f} ms" for old, new in some.values())
            kind = "LOSS" if len(slow) == len(told) else "COST"
            said.append(
                f"{kind}: {found.file} is {word} than the dense model in {found.runtime} on {' and '.join(some)} "
                f"({rest}{numbers})."
            )
    if fast:
        ratios = " and ".join(f"{old.ratio(new):.2f}x on {name}" for name, (old, new) in fast.items())
        said.append(f"FASTER: {found.file} in {found.runtime}, {ratios}.")
    return said


def _size(comparison: Comparison) -> str:
    before, after = comparison.before, comparison.after
    parts = [f"{after.archive_bytes:,} bytes in the archive instead of {before.archive_bytes:,}"]
    if after.parameters != before.parameters:
        parts.append(f"{after.parameters:,} parameters instead of {before.parameters:,}")
    if comparison.pruned:
        parts.append(f"{after.sparsity:.1%} zeros")
    size = f"{', '.join(parts)}."
    if not 0 < after.archive_bytes < 0.99 * before.archive_bytes:
        return size
    return f"SMALLER: {before.archive_bytes / after.archive_bytes:.1f}x, {size}"


def _teachers(comparison: Comparison) -> list[str]:
    """The size of a teacher beside that of the model: before the run stands the student itself."""
    own, said = comparison.after.parameters, []
    for report in comparison.methods.values():
        number = report.get("teacher parameters")
        if isinstance(number, int) and own:
            said.append(f"The teacher, {report['teacher']}, has {number:,} parameters: {number / own:.3g}x as many.")
    return said


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
