"""Ladder: the sizes that a search tries, each smaller than the last good one and larger than the last bad one."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Ladder"]

_NEAR = 0.9  # of the good size, beyond which no size between good and bad is tried


@dataclass
class Ladder:
    """Searches the smallest size at which a model is good, from large to small.

    While every size is good, the next is ``step`` times the last. Once one is bad, the next lies in the middle of the
    smallest good and the largest bad one, on a logarithmic scale. While none is good, they grow up to that of the dense
    model, which is bad only until it is trained enough.

    Attributes:
        size: the size to try now, in bytes.
        least: the smallest size that is tried.
        step: factor from a good size to the next, in (0, 1).
        good: the smallest good size; infinite if none is known.
        bad: the largest bad size that is smaller than every good one; 0 if none is known.
        most: the size of the dense model.

    >>> ladder = Ladder(size=100.0, least=1.0, step=0.5)
    >>> for holds in (True, True, False):
    ...     ladder.judge(holds)
    >>> round(ladder.size, 1), ladder.good, ladder.bad
    (35.4, 50.0, 25.0)
    """

    size: float
    least: float
    step: float
    good: float = math.inf
    bad: float = 0.0
    most: float = math.inf

    @property
    def ended(self) -> bool:
        """Whether no other size is worth a try."""
        return self.good <= self.least or (self.bad > 0 and self.bad >= _NEAR * self.good)

    def judge(self, holds: bool) -> None:
        """Note whether the model is good at the present size, and choose the next."""
        if holds:
            self.good = min(self.good, self.size)
            if self.size >= self.most:
                self.bad = 0.0  # smaller sizes were bad when the dense model was bad as well
        elif self.size < self.most:
            self.bad = self.size
        if math.isinf(self.good):
            self.size = min(self.most, self.size / self.step)
        elif self.bad:
            self.size = math.sqrt(self.good * self.bad)
        else:
            self.size = max(self.least, self.good * self.step)
