"""A convolution net over time."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["ConvNet"]


class ConvNet(nn.Module):
    """Three convolutions, each with batch normalization, and a linear layer over the remaining time steps.

    Args:
        classes: number of classes.
        width: channels of the convolutions.
    """

    def __init__(self, classes: int = 10, width: int = 32) -> None:
        super().__init__()
        self.maps = nn.Sequential(*_conv(1, width, 5), *_conv(width, width, 3), *_conv(width, width, 3))
        self.fc = nn.Linear(5 * width, classes)

    def forward(self, series: Tensor) -> Tensor:
        """``(N, 1, 40)`` -> ``(N, classes)`` logits."""
        logits: Tensor = self.fc(self.maps(series).flatten(1))
        return logits


def _conv(inputs: int, outputs: int, size: int) -> list[nn.Module]:
    convolution = nn.Conv1d(inputs, outputs, size, stride=2, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm1d(outputs), nn.ReLU()]
