"""Settings: the arguments of quantization that concern activations alone, checked once."""

from __future__ import annotations

from typing import Any

from lightning_compress.arguments import check_between, check_count, check_decay, check_effect, check_number
from lightning_compress.quantization.observers import Observer, check_observer
from lightning_compress.quantization.profiles import Profile

__all__ = ["activations_text", "check_activations"]


def activations_text(bits: int | None, profile: Profile, range_lr: float) -> str:
    """The activations in words, for the printed plan.

    >>> activations_text(8, Profile(), 0.0)
    '8-bit activations for Profile'
    """
    if bits is None:
        return "float activations"
    learned = " with learned ranges" if range_lr > 0 else ""
    kind = "inputs of linear layers" if profile.dynamic_activations else "activations"
    return f"{bits}-bit {kind}{learned} for {profile}"


def check_activations(
    owner: type[Any],
    bits: int | None,
    profile: Profile,
    *,
    observer: Observer,
    decay: float,
    range_lr: float,
    freeze_ranges_at: float,
) -> None:
    """Refuse arguments out of range, and arguments that concern activations where none are quantized.

    Args:
        owner: the class of the callback; its signature has the defaults.
        bits: ``activation_bits``.
        profile: of the runtime; one with dynamic activations needs no ranges.
        observer: as the other arguments, under their names in the callback.
        decay: see above.
        range_lr: see above.
        freeze_ranges_at: see above.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: an argument is out of its range, or has no effect and not its default.
    """
    if bits is not None:
        check_count(0, activation_bits=bits)
        check_between(4, 8, activation_bits=bits)
        check_observer(observer, bits)
    check_decay(decay=decay)
    check_between(0, 1, freeze_ranges_at=freeze_ranges_at)
    check_number(range_lr=range_lr)
    if not 0 <= range_lr < 1:
        raise ValueError(f"need 0 <= range_lr < 1, got range_lr={range_lr!r}")
    if bits is not None and not profile.dynamic_activations:
        return
    need, setting = "activation_bits", "activation_bits=None"
    if bits is not None:
        need, setting = "a profile with fixed ranges", f"profile={profile!r}"
    check_effect(
        owner, need, setting, observer=observer, decay=decay, range_lr=range_lr, freeze_ranges_at=freeze_ranges_at
    )
