"""Features distilled on unlabeled clothes, then a new task with ten labels for each class.

    python -m examples.transfer.run

A ResNet-20 learns five classes of Fashion-MNIST. A ResNet-8 learns the teacher's last features on images of all
clothes, without labels; then it gets a new head and is fine-tuned on 50 images of the five other classes. The table
compares it with the same ResNet-8 from scratch, and with one that first learned the labels of the first five classes,
without a teacher.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F

from examples.distillation import ResNetClassifier
from examples.fashion_mnist import FashionData
from lightning_compress.distillation import DistillationModule, Term, losses

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "limit_val_batches": 0,
}
KNOWN = (0, 2, 5, 6, 8)  # T-shirt, pullover, sandal, shirt, bag
NEW = (1, 3, 4, 7, 9)  # trouser, dress, coat, sneaker, ankle boot
FEATURES = [Term(losses.mse, student_layers="model.stage3", teacher_layers="model.stage3")]


class Unlabeled(ResNetClassifier):
    """A classifier without a task of its own: its loss is zero."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, _ = batch
        return self(images).new_zeros(())


class Known(FashionData):
    """The classes that the teacher has learned."""

    def setup(self, stage: str) -> None:
        super().setup(stage)
        assert self.train is not None  # setup has run
        self.train = _only(KNOWN, *self.train)


def fit(module: LightningModule, data: FashionData, epochs: int) -> nn.Module:
    """The network of ``module``, trained."""
    seed_everything(0, verbose=False)
    Trainer(**QUIET, max_epochs=epochs).fit(module, data)
    return module.model


def new_clothes(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """50 training images of the new classes, 10 of each, and their 5,000 test images; labels from 0 to 4."""
    data = FashionData()
    data.setup("fit")
    assert data.train is not None  # setup has run
    (images, labels), (test_images, test_labels) = _only(NEW, *data.train), _only(NEW, *data.test)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    few = torch.cat([order[labels[order] == label][:10] for label in NEW])
    numbers = torch.zeros(10, dtype=torch.long)
    numbers[list(NEW)] = torch.arange(len(NEW))
    return images[few], numbers[labels[few]], test_images, numbers[test_labels]


def _only(classes: Sequence[int], images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    chosen = torch.isin(labels, torch.tensor(classes))
    return images[chosen], labels[chosen]


def fine_tuned(network: nn.Module, seed: int, steps: int) -> float:
    """Accuracy of a copy of ``network`` with a new head on the test images of the new classes, in percent."""
    torch.manual_seed(seed)
    network = copy.deepcopy(network).requires_grad_()
    network.fc = nn.Linear(network.fc.in_features, len(NEW))
    x, y, test_x, test_y = new_clothes(seed)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps)
    network.train()
    for _ in range(steps):
        batch = torch.randint(len(y), (32,))
        optimizer.zero_grad()
        F.cross_entropy(network(x[batch]), y[batch]).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return 100 * (network.eval()(test_x).argmax(1) == test_y).float().mean().item()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150, help="of fine-tuning")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    known, all_clothes = Known(images=arguments.images), FashionData(images=arguments.images)
    teacher = ResNetClassifier(20)
    fit(teacher, known, arguments.epochs)
    distilled = DistillationModule(Unlabeled(8), teacher, losses=FEATURES, alpha=1.0)
    networks = {
        "from scratch": ResNetClassifier(8).model,
        "from labels, no teacher": fit(ResNetClassifier(8), known, arguments.epochs),
        "from the teacher, no labels": fit(distilled, all_clothes, arguments.epochs),
    }
    for name, network in networks.items():
        found = [fine_tuned(network, seed, arguments.steps) for seed in range(arguments.seeds)]
        print(f"{name:28} {mean(found):5.2f} +- {stdev(found) if len(found) > 1 else 0:.2f} %")


if __name__ == "__main__":
    main()
