"""Evidence: which measurement a criterion reads besides the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

__all__ = ["Evidence", "evidence_of", "reads"]

Evidence: TypeAlias = Literal["gradient", "inputs", "nothing"]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def reads(evidence: Evidence) -> Callable[[_Function], _Function]:
    """Mark a criterion by the evidence that it reads, so that no other is gathered.

    Args:
        evidence: ``"gradient"``, the gradient of the loss; ``"inputs"``, the root mean square of each input of the
            layer; ``"nothing"``, the weights suffice.

    Raises:
        ValueError: the evidence is none of these.

    >>> @reads("nothing")
    ... def size(weight, evidence):
    ...     return weight.abs()
    >>> evidence_of(size)
    'nothing'
    """
    if evidence not in ("gradient", "inputs", "nothing"):
        raise ValueError(f"need evidence 'gradient', 'inputs' or 'nothing', got {evidence!r}")

    def mark(criterion: _Function) -> _Function:
        criterion.evidence = evidence  # type: ignore[attr-defined]
        return criterion

    return mark


def evidence_of(criterion: Callable[..., Any]) -> Evidence:
    """The evidence that ``criterion`` reads; the gradient where it has no mark.

    >>> evidence_of(lambda weight, gradient: weight * gradient)
    'gradient'
    """
    function = getattr(criterion, "func", criterion)  # the function inside a functools.partial
    evidence: Evidence = getattr(function, "evidence", "gradient")
    return evidence
