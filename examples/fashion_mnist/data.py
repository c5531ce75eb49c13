"""Fashion-MNIST as a data module."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningDataModule
from torch import Tensor

from examples.fashion_mnist.files import download, find, read_idx
from examples.loaders import TensorLoader

__all__ = ["FashionData"]

_MEAN, _STD = 0.2860, 0.3530  # of the training images, in [0, 1]


class FashionData(LightningDataModule):
    """60,000 + 10,000 images ``(N, 1, 28, 28)``, normalized to mean 0 and deviation 1; no augmentation.

    The files are read from ``folder`` or Debian's package ``dataset-fashion-mnist``, or downloaded into ``folder``.

    Args:
        folder: folder of the four idx files, plain or as .gz, or torchvision's folder around ``FashionMNIST/raw``.
        batch_size: images in a training batch.
        images: number of images to train on, from the first.
        holdout: number of these to validate on instead; with 0 the test images validate, as in published tables, and
            then nothing should be chosen by the validation metric.
        seed: seed of the order of training images.

    Raises:
        ValueError: not ``0 <= holdout < images <= 60000``.
    """

    def __init__(
        self,
        folder: str = "data/fashion-mnist",
        batch_size: int = 128,
        images: int = 60_000,
        holdout: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= holdout < images <= 60_000:
            raise ValueError(f"need 0 <= holdout < images <= 60000, got holdout={holdout}, images={images}")
        self.folder = Path(folder)
        self.batch_size = batch_size
        self.images = images
        self.holdout = holdout
        self.seed = seed
        self.train: tuple[Tensor, Tensor] | None = None

    def prepare_data(self) -> None:
        if find(self.folder) is None:
            download(self.folder)

    def setup(self, stage: str) -> None:
        if self.train is not None:
            return
        paths = find(self.folder)
        if paths is None:
            raise FileNotFoundError(f"need the four files of Fashion-MNIST, got none in {self.folder}")
        images, labels, test_images, test_labels = (read_idx(path) for path in paths.values())
        split = self.images - self.holdout
        self.train = _normalized(images[:split]), labels[:split].long()
        self.test = _normalized(test_images), test_labels.long()
        held_out = slice(split, self.images)
        self.val = (_normalized(images[held_out]), labels[held_out].long()) if self.holdout else self.test

    def train_dataloader(self) -> TensorLoader:
        assert self.train is not None  # setup has run
        return TensorLoader(*self.train, batch_size=self.batch_size, shuffle=True, seed=self.seed)

    def val_dataloader(self) -> TensorLoader:
        return TensorLoader(*self.val, batch_size=1000)

    def test_dataloader(self) -> TensorLoader:
        return TensorLoader(*self.test, batch_size=1000)


def _normalized(images: Tensor) -> Tensor:
    return images.unsqueeze(1).float().div_(255).sub_(_MEAN).div_(_STD)
