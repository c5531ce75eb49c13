"""Evidence: which measurement a criterion reads besides the weights, and the running means of such measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, TypeVar

from torch import Tensor

from lightning_compress.arguments import check_decay, check_effect

__all__ = ["Evidence", "RunningMeans", "check_evidence_decay", "evidence_of", "reads", "scores_rows"]

Evidence: TypeAlias = Literal["gradient", "inputs", "nothing"]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def reads(evidence: Evidence, *, by_rows: bool = False) -> Callable[[_Function], _Function]:
    """Mark a criterion by the evidence that it reads, so that no other is gathered.

    Args:
        evidence: ``"gradient"``, the gradient of the loss; ``"inputs"``, the root mean square of each input of the
            layer; ``"nothing"``, the weights suffice.
        by_rows: whether the scores of one output depend on its own weights and evidence alone. Then large weights are
            scored a few outputs at a time, which takes less memory.

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
        criterion.by_rows = by_rows  # type: ignore[attr-defined]
        return criterion

    return mark


def evidence_of(criterion: Callable[..., Any]) -> Evidence:
    """The evidence that ``criterion`` reads; the gradient where it has no mark.

    >>> evidence_of(lambda weight, gradient: weight * gradient)
    'gradient'
    """
    evidence: Evidence = getattr(_function(criterion), "evidence", "gradient")
    return evidence


def check_evidence_decay(owner: type[Any], decay: float, criterion: Callable[..., Any]) -> None:
    """Refuse a decay of running means out of [0, 1), or one with a criterion that has none.

    Raises:
        TypeError: ``decay`` is not a number.
        ValueError: it is out of its range, or ``criterion`` reads nothing and ``decay`` is not the default of
            ``owner``.
    """
    check_decay(decay=decay)
    if evidence_of(criterion) == "nothing":
        name = getattr(_function(criterion), "__name__", type(criterion).__name__)
        check_effect(owner, "a criterion that reads gradients or inputs", f"criterion={name}", decay=decay)


def scores_rows(criterion: Callable[..., Any]) -> bool:
    """Whether the scores of one output depend on its own weights and evidence alone; not where there is no mark.

    >>> scores_rows(lambda weight, gradient: weight * gradient)
    False
    """
    by_rows: bool = getattr(_function(criterion), "by_rows", False)
    return by_rows


def _function(criterion: Callable[..., Any]) -> Callable[..., Any]:
    """The function inside a ``functools.partial``."""
    function: Callable[..., Any] = getattr(criterion, "func", criterion)
    return function


class RunningMeans(dict[str, Tensor]):
    """Name -> running mean, ``mean = decay * mean + (1 - decay) * value``; the first value is the first mean.

    Values are observed before an optimizer steps, and the step may fail or be skipped: they count from :meth:`join` on.

    >>> import torch
    >>> means = RunningMeans()
    >>> for value in (2.0, 4.0, 8.0):
    ...     means.observe({"a": torch.tensor(value)})
    ...     if value != 4:
    ...         means.join(0.5)
    >>> dict(means)
    {'a': tensor(5.)}
    """

    _observed: Mapping[str, Tensor] = MappingProxyType({})

    def observe(self, values: Mapping[str, Tensor]) -> None:
        """Hold values, in place of those that have not joined."""
        self._observed = values

    def join(self, decay: float) -> None:
        """Let the observed values join their means, by a decay in [0, 1): the optimizer has stepped."""
        for name, value in self._observed.items():
            self.setdefault(name, value.clone()).lerp_(value, 1 - decay)
        self._observed = {}
