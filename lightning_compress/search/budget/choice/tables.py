"""Tables: what a budget chose for each layer, as text."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lightning_compress.costs.allocation import Option

__all__ = ["choice_table"]

_MOST, _NAME = 20, 36  # rows, and characters of a name


def choice_table(chosen: Mapping[str, Option], weights: Mapping[str, Tensor]) -> str:
    """Rows of zeros, distinct values and estimated bytes of each layer; 80 columns, and the largest layers alone.

    Args:
        chosen: name -> option.
        weights: name -> weight with its zeros.
    """
    lines = [f"  {'weight':<{_NAME}}{'size':>11}{'zeros':>9}{'values':>9}{'bytes':>11}"]
    largest = sorted(chosen, key=lambda name: -chosen[name].size)
    for name in largest[:_MOST]:
        zeros = float((weights[name] == 0).float().mean())
        values, short = chosen[name].choice or "floats", name if len(name) <= _NAME else f"...{name[3 - _NAME :]}"
        lines.append(
            f"  {short:<{_NAME}}{weights[name].numel():>11,}{zeros:>9.1%}{values:>9}{chosen[name].size:>11,.0f}"
        )
    rest = largest[_MOST:]
    if rest:
        lines.append(f"  and {len(rest)} smaller ones: {sum(chosen[name].size for name in rest):,.0f} bytes")
    return "\n".join(lines)
