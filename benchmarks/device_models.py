"""Small networks of the kinds that devices run, and tasks that they learn in seconds; all are generated.

A task gives each class a smooth pattern of its own and adds noise; of tokens, each class prefers its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EfficientNetConfig,
    EfficientNetForImageClassification,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    PreTrainedModel,
)

from examples.time_series import ConvNet

__all__ = ["MODELS", "Kind", "Learner"]

CLASSES = 10


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        build: makes the network.
        data: number of samples -> inputs and labels; the classes are the same each time.
    """

    build: Callable[[], nn.Module]
    data: Callable[[int], tuple[Tensor, Tensor]]


class Learner(LightningModule):
    """A network with cross-entropy as loss.

    Args:
        net: returns scores, with the classes as second dimension.
        lr: learning rate of Adam.
    """

    def __init__(self, net: nn.Module, lr: float = 2e-3) -> None:
        super().__init__()
        self.net = net
        self.lr = lr

    def forward(self, x: Tensor) -> Tensor:
        """The scores."""
        scores: Tensor = self.net(x)
        return scores

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.lr)


class Logits(nn.Module):
    """A model of transformers that returns its scores alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.model(x).logits
        return scores


def _mobilenet_v2() -> nn.Module:
    config = MobileNetV2Config(depth_multiplier=0.35, image_size=32, num_labels=CLASSES, classifier_dropout_prob=0.0)
    return Logits(MobileNetV2ForImageClassification(config))


def _efficientnet() -> nn.Module:
    config = EfficientNetConfig(
        width_coefficient=0.35, depth_coefficient=0.3, image_size=32, hidden_dim=448, num_labels=CLASSES
    )
    return Logits(EfficientNetForImageClassification(config))


class Squeeze(nn.Module):
    """Squeeze and excitation: scales each channel by a number in [0, 1] that the means of all channels decide.

    Paper: Hu et al., "Squeeze-and-Excitation Networks", https://arxiv.org/abs/1709.01507 (2018).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce, self.expand = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)
        self.relu, self.gate = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = x * self.gate(self.expand(self.relu(self.reduce(self.pool(x)))))
        return scaled


class Inverted(nn.Module):
    """An inverted residual block, as in MobileNetV3.

    Paper: Howard et al., "Searching for MobileNetV3", https://arxiv.org/abs/1905.02244 (2019).
    """

    def __init__(self, inputs: int, wide: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convolved(inputs, wide, 1, 1, 1),
            *_convolved(wide, wide, 5, stride, wide),
            Squeeze(wide),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.adds else y


def _convolved(inputs: int, outputs: int, size: int, stride: int, groups: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.Hardswish()]


def _mobilenet_v3() -> nn.Module:
    return nn.Sequential(
        *_convolved(3, 16, 3, 2, 1),
        Inverted(16, 48, 24, 2),
        Inverted(24, 72, 24),
        Inverted(24, 96, 32, 2),
        Inverted(32, 96, 32),
        *_convolved(32, 96, 1, 1, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, 128),
        nn.Hardswish(),
        nn.Linear(128, CLASSES),
    )


class Encoder(nn.Module):
    """A transformer over steps of time."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.encoder(self.embed(x)).mean(1))
        return scores


def _bert() -> nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    dropouts = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return Logits(BertForSequenceClassification(BertConfig(vocab_size=99, num_labels=CLASSES, **sizes, **dropouts)))


class Recurrent(nn.Module):
    """An LSTM whose last state is classified."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, width, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.lstm(x)[0][:, -1])
        return scores


class UNet(nn.Module):
    """A class for each pixel, by transposed convolutions and concatenations with earlier maps.

    Paper: Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation",
    https://arxiv.org/abs/1505.04597 (2015).
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.down = nn.ModuleList([_block(3, width), _block(width, 2 * width)])
        self.middle = _block(2 * width, 4 * width)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), nn.ConvTranspose2d(2 * width, width, 2, 2)]
        )
        self.merge = nn.ModuleList([_block(4 * width, 2 * width), _block(2 * width, width)])
        self.head = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down[0](x)
        second = self.down[1](self.pool(first))
        x = self.middle(self.pool(second))
        for up, merge, skipped in zip(self.up, self.merge, (second, first), strict=True):
            x = merge(torch.cat([up(x), skipped], 1))
        scores: Tensor = self.head(x)
        return scores


def _block(inputs: int, outputs: int) -> nn.Sequential:
    parts = ((inputs, outputs), (outputs, outputs))
    layers = ((nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU()) for i, o in parts)
    return nn.Sequential(*(layer for three in layers for layer in three))


def _patterns(*shape: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    def data(count: int) -> tuple[Tensor, Tensor]:
        patterns = torch.randn(CLASSES, shape[0], *[4] * (len(shape) - 1), generator=_seeded(0))
        mode = "bicubic" if len(shape) == 3 else "linear"
        patterns = F.interpolate(patterns, shape[1:], mode=mode)
        random = _seeded(count)
        labels = torch.randint(CLASSES, (count,), generator=random)
        return patterns[labels] + torch.randn(count, *shape, generator=random), labels

    return data


def _steps(count: int) -> tuple[Tensor, Tensor]:
    series, labels = _patterns(8, 16)(count)
    return series.transpose(1, 2).contiguous(), labels


def _tokens(count: int) -> tuple[Tensor, Tensor]:
    random = _seeded(count)
    labels = torch.randint(CLASSES, (count,), generator=random)
    preferred = labels[:, None] * 5 + torch.randint(5, (count, 16), generator=random)
    others = torch.randint(99, (count, 16), generator=random)
    return torch.where(torch.rand(count, 16, generator=random) < 0.3, preferred, others), labels


def _pixels(count: int) -> tuple[Tensor, Tensor]:
    random = _seeded(count)
    maps = F.interpolate(torch.randn(count, 3, 4, 4, generator=random), (32, 32), mode="bicubic")
    return maps + 0.5 * torch.randn(count, 3, 32, 32, generator=random), maps.argmax(1)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


_IMAGES = _patterns(3, 32, 32)

MODELS = {
    "MobileNetV2": Kind(_mobilenet_v2, _IMAGES),
    "MobileNetV3-like": Kind(_mobilenet_v3, _IMAGES),
    "EfficientNet": Kind(_efficientnet, _IMAGES),
    "1-D convolutions": Kind(ConvNet, _patterns(1, 40)),
    "transformer encoder": Kind(Encoder, _steps),
    "BERT": Kind(_bert, _tokens),
    "LSTM": Kind(Recurrent, _steps),
    "U-Net": Kind(UNet, _pixels),
}
