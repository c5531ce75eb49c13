"""Finding the integer grid that weights lie on, from the weights alone."""

from collections.abc import Iterator

import torch
from torch import Tensor

LEVELS = 1 << 12  # the most integers that a grid may span
SMALLEST = 1 << 8  # the largest integer that the weight nearest to zero may stand for


def grid_scales(rows: Tensor) -> Tensor | None:
    """One scale per row such that every weight is exactly an integer times its row's scale, or None.

        rows[r, i] = round(scale[r] * q[r, i]),    q integer, rounded to the nearest number of the dtype.

    A row of zeros has scale 1. The answer is verified on every weight, with the arithmetic that loading uses.

    Args:
        rows: floating point weights, shape [R, N].

    Returns:
        Shape [R], same dtype; None where a row has no such scale, or spans more than `LEVELS` integers.

    Example:
        >>> grid_scales(torch.tensor([[0.1, -0.3, 0.2], [0.0, 7.0, 0.0]]).mul(torch.tensor(1.0)))
        tensor([0.1000, 7.0000])
    """
    scales = []
    for row in rows:
        scale = _row_scale(row)
        if scale is None:
            return None
        scales.append(scale)
    return torch.stack(scales) if scales else None


def grid_integers(rows: Tensor, scales: Tensor) -> Tensor:
    """The integers, shape [R, N], whose products with the scales, shape [R], are nearest to the rows."""
    return (rows.double() / scales.double()[:, None]).round().long()


def _row_scale(row: Tensor) -> Tensor | None:
    values = torch.unique(row.abs())
    values = values[values != 0]
    if values.numel() == 0:
        return row.new_ones(())
    if values.numel() > LEVELS or not values.isfinite().all():
        return None
    for integers in _candidate_integers(values):
        for scale in _candidate_scales(values, integers):
            # Below the smallest normal number a processor may flush products to zero.
            if scale >= torch.finfo(row.dtype).tiny and torch.equal(integers.to(row.dtype) * scale, values):
                return scale
    return None


def _candidate_integers(values: Tensor) -> Iterator[Tensor]:
    """Ways to read ascending magnitudes as integers, the smallest integers first."""
    ratios = values.double() / values[0].double()
    firsts = torch.arange(1, SMALLEST + 1, dtype=torch.float64)
    firsts = firsts[firsts * ratios[-1] < LEVELS]
    products = firsts[:, None] * ratios
    # Both numbers of a ratio are rounded by at most half an eps.
    near = (products - products.round()).abs() <= 1.01 * torch.finfo(values.dtype).eps * products
    yield from products.round()[near.all(dim=1)]


def _candidate_scales(values: Tensor, integers: Tensor) -> Iterator[Tensor]:
    """Scales whose products with the integers may round to the values, the likeliest first.

    A product rounds to v where it is within half a unit in the last place of v. If the interval of scales for
    which all do holds a number of the dtype, then so is the number nearest to the interval's middle.
    """
    exact = values.double()
    _, exponent = torch.frexp(exact)
    half = torch.ldexp(torch.full_like(exact, torch.finfo(values.dtype).eps / 4), exponent)
    low, high = ((exact - half) / integers).max(), ((exact + half) / integers).min()
    middle = ((low + high) / 2).to(values.dtype)
    yield middle
    # The middle itself is rounded, which matters for float64.
    for end in (0.0, float("inf")):
        yield torch.nextafter(middle, torch.full_like(middle, end))
