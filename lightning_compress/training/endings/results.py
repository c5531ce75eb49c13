"""Results: the sentences by which a method tells, at the end, whether a wish came true."""

from __future__ import annotations

from lightning_compress.lightnings import rank_zero_info, rank_zero_warn

__all__ = ["tell"]


def tell(result: str, missed: str = "") -> None:
    """Warn of a wish that was missed, and log the result, on rank 0; an empty text is left out."""
    if missed:
        rank_zero_warn(missed)
    if result:
        rank_zero_info(result)
