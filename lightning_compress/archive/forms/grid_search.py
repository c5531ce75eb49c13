"""Finding the integer grid that weights lie on, from the weights alone."""

import numpy as np
import torch
from torch import Tensor

LARGEST = 1 << 12  # no integer of a grid reaches this
SMALLEST = 1 << 8  # the largest integer that the weight nearest to zero may stand for
BATCH = 1 << 18  # weights looked at together
RUNS, FEW = 1 << 10, 16  # runs, and weights of one of them, that tell fast that weights lie on no grid


def grid_scales(rows: Tensor) -> Tensor | None:
    """One scale per row such that every weight is exactly an integer times the scale of its row, or None.

        rows[r, i] = round(scale[r] * q[r, i]),    q integer, rounded to the nearest number of the dtype.

    A row of zeros has scale 1. Every weight is verified, with the arithmetic that loading uses.

    Args:
        rows: floating point weights, shape [R, N].

    Returns:
        Shape [R], same dtype; None where a row has no such scale, or its integers reach `LARGEST`.

    Example:
        >>> grid_scales(torch.tensor([[2.0, -6.0, 4.0], [0.0, 7.0, 0.0]]))
        tensor([2., 7.])
        >>> grid_scales(torch.tensor([[1.0, 3.14159265]]))
    """
    if not may_lie_on_a_grid(rows):
        return None
    if len(rows) == 1:
        values = _few_values(rows[0])
        if values is None:
            return None
        rows = values[None]
    scales = rows.new_ones(len(rows))
    live = rows.any(dim=1).nonzero().flatten()
    start, count = 0, 16  # some rows, then ever more: weights that lie on no grid are found out early
    while start < len(live):
        batch = live[start : start + count]
        found = _batch_scales(rows[batch].abs())
        if found is None:
            return None
        scales[batch] = found
        start, count = start + count, min(2 * count, 1 + BATCH // rows.shape[1])
    return scales


def may_lie_on_a_grid(runs: Tensor) -> bool:
    """Whether runs of weights may have a scale each: False is certain and found out fast, True is not.

    The run with the most weights that are not zero is chosen. Some of them are compared with all integers that the
    smallest may be.

    Args:
        runs: shape [R, N], of any number of runs; the longer runs of other grids consist of these.

    Example:
        >>> may_lie_on_a_grid(torch.tensor([[0.5, 1.5, 2.5]]))
        True
        >>> may_lie_on_a_grid(torch.tensor([[0.5, 2**0.5, 3.14159265]]))
        False
    """
    some = runs[:RUNS]
    run = some[some.count_nonzero(dim=1).argmax()] if len(some) > 1 else some[0]
    exact = run[run != 0].double().abs().numpy()
    exact = exact[:: max(1, len(exact) // FEW)]
    with np.errstate(over="ignore", invalid="ignore"):  # nothing is near NaN and infinity
        ratios = exact / exact.min(initial=np.inf)
        most = ratios.max(initial=1.0)
        if not np.isfinite(most):
            return False
        guesses = np.arange(1, min(LARGEST, LARGEST // most + 2))  # the largest weight is at least as many steps
        for ratio in ratios:
            products = guesses * ratio
            integers = np.rint(products)
            near = np.abs(products - integers) <= _rounding(run.dtype) * integers
            guesses = guesses[near & (integers < LARGEST)]
            if not guesses.size:
                break
    return guesses.size > 0


def _rounding(dtype: torch.dtype) -> float:
    """Both numbers of a quotient are rounded, each by at most half an eps."""
    return 1.01 * torch.finfo(dtype).eps


def _few_values(values: Tensor) -> Tensor | None:
    """The different values, if they are not too many for a grid."""
    found = values[:0]
    for part in torch.split(values, BATCH):
        found = torch.unique(torch.cat([found, torch.unique(part)]))
        if found.numel() > 2 * LARGEST:
            return None
    return found


def grid_integers(rows: Tensor, scales: Tensor) -> Tensor:
    """The integers, shape [R, N], whose products with the scales, shape [R], are nearest to the rows."""
    return (rows.double() / scales.double()[:, None]).round().long()


def _batch_scales(values: Tensor) -> Tensor | None:
    """The scales of rows of magnitudes, shape [R, N], none of them all zero; None if a row has none."""
    exact = values.double()
    ratios = exact / exact.masked_fill(exact == 0, torch.inf).amin(dim=1, keepdim=True)
    scales = values.new_zeros(len(values))
    left = torch.arange(len(values))
    # Most often the smallest weight is one step; else try as many guesses at once as a batch holds.
    first, span = 1, 1
    while len(left) and first <= SMALLEST:
        if not (first * ratios[left].amax(dim=1) < LARGEST).all():  # fails with NaN and infinity, too
            return None
        guesses = torch.arange(first, min(first + span, SMALLEST + 1))
        scales[left] = _guess(values[left], ratios[left], guesses)
        left = (scales == 0).nonzero().flatten()
        first, span = first + span, max(1, BATCH // max(1, ratios[left].numel()))
    return None if len(left) else scales


def _guess(values: Tensor, ratios: Tensor, guesses: Tensor) -> Tensor:
    """The scale of every row for the first of the guesses of its smallest integer that fits, or 0."""
    products = guesses[:, None] * ratios[:, None]  # [R, guesses, N]
    integers = products.round()
    near = (products - integers).abs() <= _rounding(values.dtype) * integers
    row, guess = (near.all(dim=2) & (integers.amax(dim=2) < LARGEST)).nonzero(as_tuple=True)
    scales = values.new_zeros(len(values), len(guesses))
    scales[row, guess] = _fit(values[row], integers[row, guess])
    best = (scales != 0).int().argmax(dim=1, keepdim=True)
    return scales.gather(1, best)[:, 0]


def _fit(values: Tensor, integers: Tensor) -> Tensor:
    """Scales whose products with the integers, shape [R, N], are exactly the values, or 0 for none.

    A product rounds to v where it is within half a unit in the last place of v. If the interval of scales for
    which all do holds a number of the dtype, then so is the number nearest to the middle of that interval.
    """
    exact = values.double()
    finfo = torch.finfo(values.dtype)
    half = torch.ldexp(torch.full_like(exact, finfo.eps / 4), torch.frexp(exact).exponent)
    low, high = ((exact - half) / integers).amax(dim=1), ((exact + half) / integers).amin(dim=1)
    middle = ((low + high) / 2).to(values.dtype)
    best = torch.zeros_like(middle)
    # The middle is rounded itself, which matters for float64: so its neighbors are tried, too.
    for towards in (torch.inf, 0.0, middle):
        scales = torch.nextafter(middle, torch.as_tensor(towards).to(middle).expand_as(middle))
        exactly = (integers.to(values.dtype) * scales[:, None] == values).all(dim=1)
        # Below the smallest normal number a processor may flush products to zero.
        best = torch.where(exactly & (scales >= finfo.tiny), scales, best)
    return best
