"""A small convolutional classifier of real digits, and a loader that carries its state."""

import math
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.support.runs import trainer


@cache
def digits() -> tuple[Tensor, Tensor]:
    """1,797 images of shape (1, 8, 8) in [0, 1], and their labels."""
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels)


class Digits(L.LightningModule):
    """Convolutions, BatchNorm, dropout, a linear head: what a method meets in practice."""

    def __init__(self, optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW, **options: Any) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(64, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
        )
        self.optimizer = optimizer
        self.options = options or {"lr": 3e-3, "weight_decay": 0.1}

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        logits = self(batch[0])
        self.log("val_loss", F.cross_entropy(logits, batch[1]), sync_dist=True)
        self.log("val_acc", (logits.argmax(1) == batch[1]).float().mean(), sync_dist=True)

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters(), **self.options)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Shortcut(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width)
        self.conv2, self.norm2 = nn.Conv2d(2 * width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class Residual(Digits):
    """The same with a residual block after the first convolution."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.net[2] = Shortcut(8)


class Added(nn.Module):
    """A frozen linear layer or convolution with an adapter of rank 2 beside it, in the way of LoRA, without PEFT."""

    def __init__(self, base: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        out, *inputs = base.weight.shape
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, math.prod(inputs)) / math.prod(inputs) ** 0.5)
        self.up = nn.Parameter(torch.zeros(out, 2))
        from lightning_compress.adapters import declare  # not at the top: plain modules load without the package

        declare(self, "base.weight", Added.delta)

    def delta(self) -> Tensor:
        """What the layer adds to the weight of its base."""
        return (self.up @ self.down).view_as(self.base.weight)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.base, nn.Linear):
            return self.base(x) + F.linear(x, self.delta())
        return self.base(x) + F.conv2d(x, self.delta(), None, self.base.stride, self.base.padding)


class Adapted(Digits):
    """The same, of which adapters and batch normalization are trained."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for index in (0, 3, 9, 11):
            self.net[index] = Added(self.net[index])


class LoRA(Digits):
    """The same, with LoRA of PEFT."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from peft import LoraConfig, inject_adapter_in_model

        layers = [f"net.{index}" for index in (0, 3, 9, 11)]
        inject_adapter_in_model(LoraConfig(r=2, lora_alpha=4, target_modules=layers), self)


class Manual(Digits):
    """Manual optimization with one optimizer for the convolutions and one for the head, each stepping every batch."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        first, second = self.optimizers()
        for optimizer in (first, second):
            loss = F.cross_entropy(self(batch[0]), batch[1])
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self) -> Any:
        convolutions = [p for layer in self.net[:6] for p in layer.parameters()]
        head = [p for layer in self.net[6:] for p in layer.parameters()]
        return [torch.optim.AdamW(convolutions, 3e-3), torch.optim.SGD(head, 0.1, momentum=0.9)]


class Batches:
    """Shuffled batches of digits by seed and epoch; ``state_dict`` lets a run resume in the middle of an epoch."""

    def __init__(self, size: int = 32, count: int = 12, seed: int = 0) -> None:
        self.size, self.count, self.seed = size, count, seed
        self.epoch, self.position = 0, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[Tensor]]:
        images, labels = digits()
        order = torch.randperm(1400, generator=torch.Generator().manual_seed(1000 * self.seed + self.epoch))
        for position in range(self.position, self.count):
            rows = order[position * self.size : (position + 1) * self.size]
            # The state is that after this batch: the Trainer need not ask for one more to end an epoch.
            last = position + 1 == self.count
            self.epoch, self.position = (self.epoch + 1, 0) if last else (self.epoch, position + 1)
            yield [images[rows], labels[rows]]

    @property
    def sampler(self) -> "Batches":
        return self

    def set_epoch(self, epoch: int) -> None:
        """The Trainer says where it resumes at the end of an epoch: it keeps no state of loaders there."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


def held_out() -> DataLoader[tuple[Tensor, ...]]:
    """The last 397 digits in one batch."""
    images, labels = digits()
    return DataLoader(TensorDataset(images[1400:], labels[1400:]), batch_size=400)


def fit(module: L.LightningModule, *callbacks: L.Callback, ckpt_path: Any = None, **options: Any) -> L.Trainer:
    """Train ``module`` on digits with seed 0, validating after every epoch."""
    L.seed_everything(0, verbose=False)
    run = trainer(*callbacks, **options)
    run.fit(module, Batches(), held_out(), ckpt_path=ckpt_path)
    return run


def build(
    optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW, kind: type[Digits] = Digits, **options: Any
) -> Digits:
    """The same initial weights every time; ``options`` are the optimizer's."""
    L.seed_everything(0, verbose=False)
    return kind(optimizer, **options)


def teacher() -> nn.Module:
    """Another network for digits, with other weights than those of :func:`build`."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return Digits().net
