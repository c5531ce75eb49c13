"""Two pieces of work, timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

__all__ = ["ratio"]


def ratio(one: Callable[[], object], other: Callable[[], object], turns: int, repeat: int = 1) -> float:
    """Median over the turns of the process time of ``other`` against that of ``one``; each warmed up once."""
    one()
    other()
    ratios = []
    for _ in range(turns):
        times = []
        for work in (one, other):
            began = time.process_time()
            for _ in range(repeat):
                work()
            times.append(time.process_time() - began)
        ratios.append(times[1] / times[0])
    return median(ratios)
