"""Features distilled on unlabelled clothes, used to read digits from 10 labels a class.

    python -m examples.transfer.run

A ResNet-20 has learned Fashion-MNIST. A ResNet-8 learns the teacher's last features on the same images, without their
labels; then it gets a new head and is fine-tuned on 100 handwritten digits. Against it: the same ResNet-8 from
scratch, and fine-tuned from weights that it learned from the labels of Fashion-MNIST, without a teacher.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
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
FEATURES = [Term(losses.mse, student="model.stage3", teacher="model.stage3")]


class Unlabelled(ResNetClassifier):
    """A classifier without a task of its own: it only looks at the images."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, _ = batch
        return self(images).new_zeros(())


def fit(module: LightningModule, images: int, epochs: int) -> nn.Module:
    """The network of ``module``, trained on Fashion-MNIST."""
    seed_everything(0, verbose=False)
    Trainer(**QUIET, max_epochs=epochs).fit(module, FashionData(images=images))
    return module.model


def digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """100 digits to learn from, 10 of each class, and the others to test on; 28 x 28, normalised."""
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float()[:, None] / 16
    images = F.interpolate(images, size=28, mode="bilinear", align_corners=False)
    images, labels = (images - images.mean()) / images.std(), torch.from_numpy(bunch.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    known = torch.cat([order[labels[order] == digit][:10] for digit in range(10)])
    others = order[~torch.isin(order, known)]
    return images[known], labels[known], images[others], labels[others]


def fine_tuned(network: nn.Module, seed: int, steps: int = 150) -> float:
    """Accuracy on the other digits, in percent, of a copy of ``network`` with a new head."""
    torch.manual_seed(seed)
    network = copy.deepcopy(network).requires_grad_()
    network.fc = nn.Linear(network.fc.in_features, 10)
    x, y, test_x, test_y = digits(seed)
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
    parser.add_argument("--teacher", type=Path, help="checkpoint of examples/distillation/teacher.yaml")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.teacher:
        teacher = ResNetClassifier.load_from_checkpoint(arguments.teacher)
    else:
        teacher = ResNetClassifier(20)
        fit(teacher, arguments.images, arguments.epochs)
    distilled = DistillationModule(Unlabelled(8), teacher, FEATURES, alpha=1.0)
    networks = {
        "from scratch": ResNetClassifier(8).model,
        "from labels, no teacher": fit(ResNetClassifier(8), arguments.images, arguments.epochs),
        "from the teacher, no labels": fit(distilled, arguments.images, arguments.epochs),
    }
    for name, network in networks.items():
        found = [fine_tuned(network, seed) for seed in range(arguments.seeds)]
        print(f"{name:28} {mean(found):5.2f} +- {stdev(found) if len(found) > 1 else 0:.2f} %")


if __name__ == "__main__":
    main()
