"""Scores: the importance of the units of a weight, a few outputs at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_compress.arguments import check_tensor_answer
from lightning_compress.blocks import row_blocks
from lightning_compress.evidence import evidence_of, scores_rows
from lightning_compress.pruning.criteria import Criterion
from lightning_compress.pruning.patterns import Pattern

__all__ = ["check_scores", "runs", "spread", "unit_scores", "weights_in_unit"]


def unit_scores(
    name: str, weight: Tensor, evidence: Tensor, criterion: Criterion, pattern: Pattern
) -> Iterator[Tensor]:
    """Scores of the units of a weight.

    Args:
        name: of the weight, for errors.
        weight: ``(out, in, ...)``.
        evidence: for criteria that read gradients, the running mean of the scores; for those that read inputs, the mean
            square of each input, ``(1, in, ...)``; else an empty tensor.
        criterion: scores the weights.
        pattern: weights that are masked together.

    Yields:
        float32 scores of the units of a run of outputs, in their order; of all units at once if the criterion or the
        pattern needs the whole weight.

    Raises:
        TypeError: the criterion or the pattern returns no tensor.
        ValueError: the scores have another shape than the weights.

    >>> from lightning_compress.pruning import criteria
    >>> from lightning_compress.pruning.patterns import Block
    >>> weight, nothing = torch.tensor([[3.0, -1.0]]), torch.tensor([])
    >>> [scores.tolist() for scores in unit_scores("w", weight, nothing, criteria.magnitude, Block(1, 2))]
    [[[4.0]]]
    """
    known = evidence_of(criterion) == "gradient"
    for run in runs(weight, pattern if known or scores_rows(criterion) else None):
        part, seen = weight[run], evidence[run] if evidence.shape[:1] == weight.shape[:1] else evidence
        if evidence_of(criterion) == "inputs":
            seen = seen.sqrt()
        scores = seen if known else criterion(part, seen)
        check_scores(name, scores, part, criterion)
        units = pattern.units(scores.float())
        check_tensor_answer("pattern.units(scores)", pattern, units)
        yield units


def check_scores(name: str, scores: object, weight: Tensor, criterion: Criterion) -> None:
    """Refuse scores of a criterion that are no tensor of the weight's shape.

    Raises:
        TypeError: the scores are no tensor.
        ValueError: they have another shape.
    """
    check_tensor_answer("criterion(weight, evidence)", criterion, scores)
    if isinstance(scores, Tensor) and scores.shape != weight.shape:
        raise ValueError(
            f"need a criterion that gives scores of the weight's shape, got {tuple(scores.shape)} for {name!r} of "
            f"{tuple(weight.shape)}"
        )


def spread(pattern: Pattern, kept: Tensor, shape: torch.Size) -> Tensor:
    """True for each weight that is kept, from the units that are kept.

    Raises:
        TypeError: the pattern returns no tensor.
        ValueError: it returns one of another shape than the weight.
    """
    entries = pattern.spread(kept, shape)
    check_tensor_answer("pattern.spread(kept, shape)", pattern, entries, shape)
    return entries


def runs(weight: Tensor, pattern: Pattern | None) -> Iterator[slice]:
    """Runs of outputs of a weight ``(out, in, ...)`` that hold whole units; all outputs if there is no pattern."""
    if pattern is None or pattern.outputs is None:
        yield slice(None)
    else:
        yield from row_blocks(weight, multiple=pattern.outputs)


def weights_in_unit(weight: Tensor, pattern: Pattern) -> int:
    """Number of weights in a unit of a pattern, for a weight ``(out, in, ...)``.

    >>> from lightning_compress.pruning.patterns import Block
    >>> weights_in_unit(torch.zeros(4, 6), Block(2, 3))
    6
    """
    part = weight if pattern.outputs is None else weight[: pattern.outputs]
    return part.numel() // max(1, pattern.units(torch.zeros_like(part, dtype=torch.float32)).numel())
