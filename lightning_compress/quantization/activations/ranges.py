"""Ranges of activations: how they follow what is observed, and an optimizer that moves them along their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["MOST_VALUES", "RangeOptimizer", "followed"]

MOST_VALUES = 1024
"""Number of values that a window collects. Of so many normal values about one in a thousand lies outside of the range
of as many others; of two values, every third."""

_DECAYS = 0.9, 0.99  # of the two moments; short, since a range converges within some hundred steps


def followed(ranges: Tensor, windows: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    r"""Ranges after one observation, and the windows to go on with.

    A full window, of ``MOST_VALUES`` or more, moves the range: ``range = decay * range + (1 - decay) * window``, and a
    new window begins. The extremes of fewer values say little: until the window is full, the range holds it, and does
    not shrink. One batch of a network of usual size fills a window.

    Args:
        ranges: ``(R, 2)``, lowest and highest values.
        windows: ``(R, 3)``, lowest and highest values that were observed, and their number.
        decay: of the running mean, in [0, 1).

    >>> ranges, full, few = torch.tensor([[-1.0, 1.0]]), torch.tensor([[0.0, 3.0, 5000]]), torch.tensor([[0.0, 3.0, 2]])
    >>> followed(ranges, full, 0.5)
    (tensor([[-0.5000,  2.0000]]), tensor([[0., 0., 0.]]))
    >>> followed(ranges, few, 0.5)
    (tensor([[-1.,  3.]]), tensor([[0., 3., 2.]]))
    """
    low, high = ranges.unbind(1)
    lowest, highest, values = windows.unbind(1)
    held = torch.stack([torch.minimum(low, lowest), torch.maximum(high, highest)], 1)
    full = (values >= MOST_VALUES).unsqueeze(1)
    return torch.where(full, ranges.lerp(windows[:, :2], 1 - decay), held), windows.masked_fill(full, 0)


class RangeOptimizer:
    r"""Adam, with steps in fractions of the width of the range.

    ``bound -= lr * (high - low) * m / sqrt(v)`` with the moments ``m`` and ``v`` of the bound's gradient. Every tensor
    of activations has its own unit; this step has none, so that one learning rate fits all. The gradient scale
    ``1 / sqrt(N * levels)`` of LSQ keeps the steps of stochastic gradient descent in proportion; here it cancels.

    Papers: Kingma and Ba, "Adam: A Method for Stochastic Optimization", https://arxiv.org/abs/1412.6980 (2015); Jain et
    al., "Trained Quantization Thresholds for Accurate and Efficient Fixed-Point Inference of Deep Neural Networks",
    https://arxiv.org/abs/1903.08066 (2020), for the units.

    Args:
        lr: about the largest fraction of its width by which a range moves in one step.

    >>> RangeOptimizer(0.1).moved(torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 7.0]]))
    tensor([[0.0000, 1.8000]])
    """

    def __init__(self, lr: float) -> None:
        self.lr = lr
        self._steps = 0
        self._moments: Tensor | None = None

    def moved(self, ranges: Tensor, gradients: Tensor) -> Tensor:
        """The ranges, widened to hold zero, after one step.

        Args:
            ranges: ``(R, 2)``, lowest and highest values.
            gradients: of the loss, ``(R, 2)``. One that is not finite counts as zero: a loss scaler skips such steps.
        """
        ranges = torch.stack([ranges[:, 0].clamp(max=0), ranges[:, 1].clamp(min=0)], 1)
        gradients = gradients.nan_to_num(0.0, 0.0, 0.0)
        moments = torch.zeros(2, *ranges.shape) if self._moments is None else self._moments
        decays = ranges.new_tensor(_DECAYS).view(2, 1, 1)
        self._steps += 1
        self._moments = moments.to(ranges).lerp(torch.stack([gradients, gradients.square()]), 1 - decays)
        mean, square = self._moments / (1 - decays**self._steps)
        step = mean / square.sqrt().clamp_(min=torch.finfo(ranges.dtype).tiny)
        moved: Tensor = ranges - self.lr * (ranges[:, 1:] - ranges[:, :1]) * step
        return moved

    def state_dict(self) -> dict[str, Any]:
        """Moments and steps, for a checkpoint."""
        return {"steps": self._steps, "moments": self._moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state that :meth:`state_dict` returned."""
        self._steps, self._moments = state["steps"], state["moments"]
