"""Latents of frozen weights in half of the memory."""

from __future__ import annotations

from collections.abc import Iterable

from lightning_compress.adapters.paths import AdditivePath
from lightning_compress.lightnings import CallbackBase

__all__ = ["HalfLatents", "halved"]


class HalfLatents(CallbackBase):
    """Keeps the original of each frozen weight with adapters in bfloat16, in place of a copy in float32.

    It stands once in ``Trainer(callbacks=[...])``, for all methods. The weights are rounded to 8 bits before training;
    weights that were published in bfloat16 lose nothing. All sums and projections are computed in the precision of the
    parameter.

    Raises:
        ValueError: in ``fit``, no frozen weight of more than 16 bits is compressed with its adapters; or the checkpoint
            that a run resumes from was written without this callback, and its latents would be rounded.

    >>> HalfLatents()
    HalfLatents()
    """

    def __repr__(self) -> str:
        return "HalfLatents()"


def halved(callbacks: Iterable[object], paths: Iterable[AdditivePath]) -> bool:
    """Whether the latents of frozen weights are kept in bfloat16.

    Args:
        callbacks: those of the Trainer.
        paths: of the weights that are compressed with their adapters.

    Raises:
        ValueError: nothing would be halved.
    """
    if not any(isinstance(callback, HalfLatents) for callback in callbacks):
        return False
    found = [path.parameter for path in paths]
    if any(not parameter.requires_grad and parameter.element_size() > 2 for parameter in found):
        return True
    kinds = sorted({f"trained, in {p.dtype}" if p.requires_grad else f"in {p.dtype}" for p in found})
    raise ValueError(
        "need frozen weights of more than 16 bits with adapters for HalfLatents, got "
        f"{', '.join(kinds) or 'no weight with adapters'}: remove it from the callbacks"
    )
