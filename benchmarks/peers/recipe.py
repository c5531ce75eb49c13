"""The recipe that all peers follow: data, networks, order of batches, optimizer, learning rate.

This file needs nothing but torch, so that it runs in the environment of every peer.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["RECIPES", "ROOT", "Data", "Recipe", "Run", "Write", "accuracy", "data_of", "plain", "quick"]

Write: TypeAlias = Callable[[Path], None]
"""Writes the files of a trained network into a folder."""

ROOT = Path(__file__).parents[2]

_KEPT = 0.8
"""Progress at which a checkpoint is kept, after every ramp."""


def _example(name: str) -> ModuleType:
    """A file of ``examples/fashion_mnist``, alone: the package around it needs Lightning."""
    path = ROOT / "examples" / "fashion_mnist" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"fashion_mnist_{name}", path)
    assert spec is not None  # of a file with the suffix .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_files, _models = _example("files"), _example("models")


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        network: makes the network.
        images: number of training images, from the first.
        epochs: passes over them.
        lr: highest learning rate of OneCycle.
        part: steps of an epoch of Lightning, for a callback that acts only at the ends of epochs.
        timed: images and epochs of the runs that are timed.
        batch: images in a batch.
        invented: whether random images take the place of Fashion-MNIST.
    """

    network: Callable[[], nn.Module]
    images: int
    epochs: int
    lr: float
    part: int
    timed: tuple[int, int]
    batch: int = 128
    invented: bool = False

    def short(self) -> Recipe:
        """The recipe of the runs that are timed."""
        images, epochs = self.timed
        return dataclasses.replace(self, images=images, epochs=epochs)


def _resnet8() -> nn.Module:
    network: nn.Module = _models.ResNet(8)
    return network


RECIPES = {
    "pruning": Recipe(_models.LeNet300, 60_000, 10, lr=0.1, part=134, timed=(60_000, 2)),
    "start": Recipe(_resnet8, 20_000, 3, lr=0.1, part=157, timed=(5_120, 1)),
    "quantization": Recipe(_resnet8, 20_000, 1, lr=0.02, part=157, timed=(5_120, 1)),
}
"""Row, or the dense checkpoint that the row of quantization starts from -> its recipe."""


def quick(recipe: Recipe) -> Recipe:
    """Few steps on random images, to see that everything runs."""
    return dataclasses.replace(recipe, images=1_280, epochs=2, part=2, timed=(1_280, 1), invented=True)


@dataclass(frozen=True)
class Data:
    """Images ``(N, 1, 28, 28)``, normalized, and their labels ``(N,)``."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


@functools.lru_cache(maxsize=2)
def data_of(recipe: Recipe) -> Data:
    """The data of a recipe: Fashion-MNIST, or random images."""
    if recipe.invented:
        return Data(*_invented(recipe.images), *_invented(512))
    paths = _files.find(ROOT / "data" / "fashion-mnist")
    if paths is None:
        raise FileNotFoundError("need Fashion-MNIST in data/fashion-mnist or /usr/share/datasets, got none")
    images, labels, test_images, test_labels = map(_files.read_idx, paths.values())
    return Data(_normalized(images), labels.long(), _normalized(test_images), test_labels.long())


def _normalized(images: Tensor) -> Tensor:
    return images.unsqueeze(1).float().div_(255).sub_(0.2860).div_(0.3530)


def _invented(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    images = torch.randn(number, 1, 28, 28, generator=generator)
    return images, images[:, 0, :10, :].mean(2).argmax(1)


class Run:
    """One training run of a peer: the network, and its batches in an order that only the seed decides.

    Args:
        recipe: what is trained, and how long.
        data: from ``data_of(recipe)``.
        seed: of the first weights and the order of the images.
        start: state dict of the first weights instead.
        keep: file that gets a checkpoint after four fifths of the steps.
        resume: checkpoint with which the run goes on.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Data,
        seed: int = 0,
        *,
        start: Path | None = None,
        keep: Path | None = None,
        resume: Path | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.model = recipe.network()
        if start is not None:
            self.model.load_state_dict(torch.load(start, weights_only=True))
        self.recipe, self.data, self.seed = recipe, data, seed
        self.keep, self.resume = keep, resume
        self.epoch_steps = -(-recipe.images // recipe.batch)
        self.steps = recipe.epochs * self.epoch_steps
        self.kept_step = round(_KEPT * self.steps)
        self._drawn: list[float] = []

    @property
    def example(self) -> Tensor:
        """Some images, for tools that trace the network."""
        return self.data.images[:8]

    @property
    def calibration(self) -> Iterator[Tensor]:
        """Ten batches of training images, for tools that want to see activations first."""
        return iter(self.data.images[: 10 * self.recipe.batch].split(self.recipe.batch))

    @property
    def seconds_per_step(self) -> float:
        """CPU time between two batches, without the first tenth of them."""
        times = self._drawn[len(self._drawn) // 10 :]
        return (times[-1] - times[0]) / (len(times) - 1)

    def batches(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the steps from ``first`` to before ``last``."""
        for step in range(first, last):
            epoch, position = divmod(step, self.epoch_steps)
            if step == first or position == 0:
                # The generator takes 32 bits, so the seed cannot simply fill the upper half of 64.
                generator = torch.Generator().manual_seed(100_003 * self.seed + epoch)
                order = torch.randperm(self.recipe.images, generator=generator).split(self.recipe.batch)
            self._drawn.append(time.process_time())
            yield self.data.images[order[position]], self.data.labels[order[position]]

    def optimizer(self, model: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """SGD with Nesterov momentum 0.9, and a learning rate that rises and falls once."""
        lr = self.recipe.lr
        optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=self.steps)

    def loop(self, model: nn.Module, after_step: Callable[[int], Any] = lambda step: None) -> nn.Module:
        """A plain PyTorch loop; ``after_step`` is called with the number of steps that are done."""
        optimizer, schedule = self.optimizer(model)
        parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
        first = 0
        if self.resume is not None:
            first, states = torch.load(self.resume, weights_only=False)
            for name, part in parts.items():
                part.load_state_dict(states[name])
        for step, (images, labels) in enumerate(self.batches(first, self.steps), first + 1):
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            after_step(step)
            if self.keep is not None and step == self.kept_step:
                torch.save((step, {name: part.state_dict() for name, part in parts.items()}), self.keep)
        return model


def plain(run: Run) -> nn.Module:
    """The run without a peer."""
    return run.loop(run.model)


@torch.no_grad()
def accuracy(classify: Callable[[Tensor], Tensor], data: Data) -> float:
    """Test images in the right class, in %."""
    classes = torch.cat([classify(part).argmax(1) for part in data.test_images.split(100)])
    return 100 * (classes == data.test_labels).float().mean().item()
