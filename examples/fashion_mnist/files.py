"""The four idx files of Fashion-MNIST: find, download, read.

Data: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
https://arxiv.org/abs/1708.07747 (2017).
"""

from __future__ import annotations

import gzip
import hashlib
import math
import urllib.request
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["CHECKSUMS", "download", "find", "read_idx"]

CHECKSUMS = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
"""File -> MD5 of its .gz, as its authors publish it."""

_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist


def find(folder: Path) -> dict[str, Path] | None:
    """File -> its path, from the first folder that holds all four, plain or as .gz; None if there is no such folder.

    The folders are ``folder``, torchvision's ``folder/FashionMNIST/raw``, and that of Debian's package
    ``dataset-fashion-mnist``.
    """
    for place in (folder, folder / "FashionMNIST" / "raw", _DEBIAN):
        paths = {name: path for name in CHECKSUMS for path in (place / f"{name}.gz", place / name) if path.is_file()}
        if paths.keys() == CHECKSUMS.keys():
            return paths
    return None


def download(folder: Path) -> None:
    """Download the four files into ``folder`` and check them.

    Raises:
        OSError: a file cannot be downloaded.
        ValueError: a downloaded file is not the published one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, checksum in CHECKSUMS.items():
        try:
            with urllib.request.urlopen(f"{_URL}{name}.gz", timeout=60) as response:
                content = response.read()
        except OSError as error:
            raise OSError(
                f"need Fashion-MNIST, got no {name}.gz from {_URL} ({error}): put the four files into {folder}, name "
                "the folder that holds them, or install Debian's package dataset-fashion-mnist"
            ) from error
        if (got := hashlib.md5(content, usedforsecurity=False).hexdigest()) != checksum:
            raise ValueError(f"need {name}.gz with MD5 {checksum}, got {got} from {_URL}")
        (folder / f"{name}.gz").write_bytes(content)


def read_idx(path: Path) -> Tensor:
    """Read an idx file of bytes: two zeros, type 8, number of dimensions, their sizes (big-endian), the bytes.

    Raises:
        ValueError: the file has another format, or is incomplete.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = bytearray(file.read())
    if content[:3] != b"\x00\x00\x08" or len(content) < 4:
        raise ValueError(f"need an idx file of unsigned bytes, got {path} that starts with {content[:4].hex(' ')!r}")
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise ValueError(f"need {start + math.prod(shape)} bytes for shape {shape}, got {len(content)} in {path}")
    return torch.frombuffer(content, dtype=torch.uint8, offset=start).view(shape)
