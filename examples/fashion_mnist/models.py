"""Networks for images of 1 x 28 x 28 and ten classes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LeNet5", "LeNet300", "ResNet"]


class LeNet300(nn.Module):
    """LeNet-300-100: three linear layers, 266,610 parameters.

    Paper: LeCun et al., "Gradient-based learning applied to document recognition" (1998).
    """

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.fc2(F.relu(self.fc1(images.flatten(1)))))
        logits: Tensor = self.fc3(hidden)
        return logits


class LeNet5(nn.Module):
    """LeNet-5 as in compression papers (20 and 50 channels, 500 units), 431,080 parameters.

    Paper: Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
    https://arxiv.org/abs/1506.02626 (2015).
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.max_pool2d(F.relu(self.conv1(images)), 2)
        maps = F.max_pool2d(F.relu(self.conv2(maps)), 2)
        logits: Tensor = self.fc2(F.relu(self.fc1(maps.flatten(1))))
        return logits


class ResNet(nn.Module):
    """The residual network for small images: three stages, each half as wide in space and twice in channels.

    ``ResNet(20)`` has 272,186 parameters, ``ResNet(8)`` 77,754; shortcuts between stages are 1 x 1 convolutions.

    Paper: He et al., "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385 (2015).

    Args:
        depth: 6 n + 2 layers, for n blocks in a stage.
        width: channels of the first stage.

    Raises:
        ValueError: ``depth`` is not 6 n + 2 for an n above 0.
    """

    def __init__(self, depth: int = 20, width: int = 16) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"need a depth of 8, 14, 20, ... (6 n + 2), got depth={depth}")
        self.conv = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.stage1 = _stage(blocks, width, width, stride=1)
        self.stage2 = _stage(blocks, width, 2 * width, stride=2)
        self.stage3 = _stage(blocks, 2 * width, 4 * width, stride=2)
        self.fc = nn.Linear(4 * width, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = F.relu(self.norm(self.conv(images)))
        maps = self.stage3(self.stage2(self.stage1(maps)))
        logits: Tensor = self.fc(maps.mean((2, 3)))
        return logits


class _Block(nn.Module):
    """``relu(x + conv(relu(conv(x))))``, each convolution with BatchNorm; the shortcut gives x the shape of the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(maps)))))
        return F.relu(residual + self.shortcut(maps))


def _stage(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    rest = [_Block(outputs, outputs, 1) for _ in range(blocks - 1)]
    return nn.Sequential(_Block(inputs, outputs, stride), *rest)
