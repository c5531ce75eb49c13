"""Files in the format of Fashion-MNIST, with few images that can be learned."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

RNG = np.random.default_rng(0)
ARRAYS = {
    "train-images-idx3-ubyte": RNG.integers(0, 256, (40, 28, 28)),
    "train-labels-idx1-ubyte": RNG.integers(0, 10, 40),
    "t10k-images-idx3-ubyte": RNG.integers(0, 256, (20, 28, 28)),
    "t10k-labels-idx1-ubyte": RNG.integers(0, 10, 20),
}
for image, label in zip(ARRAYS["train-images-idx3-ubyte"], ARRAYS["train-labels-idx1-ubyte"], strict=True):
    image[2 * label : 2 * label + 4] = 255  # something to learn


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_files(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ARRAYS.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
