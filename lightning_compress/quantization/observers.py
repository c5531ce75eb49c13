"""Observers: the range of one batch of activations.

All share one signature, ``Observer = Callable[[Tensor, int], tuple[Tensor, Tensor]]``: activations, bits -> lowest and
highest value, two scalars. The range of a quantizer follows both as a running mean. An observer of your own is a
function of this signature; bind options with :func:`functools.partial`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_compress.arguments import check_function, shown

__all__ = ["Observer", "check_observer", "minmax", "mse", "percentile"]

Observer: TypeAlias = Callable[[Tensor, int], tuple[Tensor, Tensor]]

_SAMPLE = 1 << 16


def minmax(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value.

    >>> minmax(torch.tensor([-1.0, 0.0, 3.0]), 8)
    (tensor(-1.), tensor(3.))
    """
    low, high = torch.aminmax(x)
    return low, high


def percentile(x: Tensor, bits: int, fraction: float = 0.999) -> tuple[Tensor, Tensor]:
    """The range without the lowest and the highest ``1 - fraction`` of the activations, estimated on an even sample.

    >>> percentile(torch.arange(1001.0), 8, fraction=0.9)
    (tensor(100.), tensor(900.))
    """
    flat = _sample(x)
    low, high = torch.quantile(flat, flat.new_tensor([1 - fraction, fraction]))
    return low, high


def mse(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The range with the smallest squared error of rounding and clipping, out of 20 that shrink towards zero.

    >>> low, high = mse(torch.cat([torch.linspace(0, 1, 1000), torch.tensor([9.0])]), 2)
    >>> bool(high < 3)
    True
    """
    flat = _sample(x)
    low, high = (bound.clone() for bound in torch.aminmax(flat))
    fractions = torch.linspace(0.05, 1.0, 20, dtype=x.dtype, device=x.device)
    errors = torch.stack([_error(flat, low * fraction, high * fraction, bits) for fraction in fractions])
    best = fractions[errors.argmin()]
    return low * best, high * best


def check_observer(observer: Observer, bits: int) -> None:
    """Try ``observer`` on activations from -1 to 1.

    Raises:
        TypeError: it is no function of activations and bits, or does not return two scalar tensors.
        ValueError: the lowest value is above the highest.

    >>> check_observer(lambda x, bits: x.max(), 8)
    Traceback (most recent call last):
    TypeError: need observer(values, bits) to return two scalar tensors, lowest and highest, got tensor(1.)
    """
    check_function("values", "bits", observer=observer)
    found = observer(torch.linspace(-1.0, 1.0, 64), bits)
    if not isinstance(found, tuple) or len(found) != 2 or not all(_is_scalar(bound) for bound in found):
        raise TypeError(
            f"need observer(values, bits) to return two scalar tensors, lowest and highest, got {shown(found)}"
        )
    low, high = found
    if not low <= high:
        raise ValueError(f"need observer(values, bits) to return the lowest value first, got {shown(found)}")


def _is_scalar(bound: object) -> bool:
    return isinstance(bound, Tensor) and bound.ndim == 0


def _error(x: Tensor, low: Tensor, high: Tensor, bits: int) -> Tensor:
    scale = ((high.clamp(min=0) - low.clamp(max=0)) / (2**bits - 1)).clamp(min=torch.finfo(x.dtype).tiny)
    clipped = x.clamp(low.clamp(max=0), high.clamp(min=0))
    error: Tensor = ((clipped / scale).round() * scale - x).square().mean()
    return error


def _sample(x: Tensor) -> Tensor:
    flat = x.flatten()
    return flat[:: max(1, len(flat) // _SAMPLE)]
