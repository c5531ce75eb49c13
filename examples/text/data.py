"""Docstrings of installed packages as a data module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from zlib import crc32

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from examples.loaders import TensorLoader

__all__ = ["DocstringData"]

_FEWEST = 12  # words in a docstring


class DocstringData(LightningDataModule):
    """Docstrings ``(N, length)`` as word numbers; the label of a docstring is its package.

    A hash numbers the words, 1 to ``words - 1``; 0 is padding. Names of packages are left out. All docstrings of a file
    are in one split: about 80 % to train, 10 % to validate, 10 % to test.

    Args:
        packages: names of installed packages with Python sources.
        count: docstrings of each package.
        words: size of the vocabulary, padding included.
        length: number of words kept of a docstring.
        batch_size: docstrings in a batch.
        seed: seed of the order of training docstrings.

    Raises:
        ValueError: a package is not installed, or has fewer than ``count`` docstrings.
    """

    def __init__(
        self,
        packages: Sequence[str] = ("numpy", "scipy", "sklearn", "torch"),
        count: int = 1000,
        words: int = 4096,
        length: int = 64,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.packages = tuple(packages)
        self.count = count
        self.words = words
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.splits: list[tuple[Tensor, Tensor]] | None = None

    def setup(self, stage: str) -> None:
        if self.splits is not None:
            return
        found = [
            (crc32(file.encode()) % 10, self._row(text), label)
            for label, package in enumerate(self.packages)
            for file, text in self._texts(package)
        ]
        parts = [[(row, label) for part, row, label in found if part in kept] for kept in (range(8), (8,), (9,))]
        self.splits = [(torch.tensor([r for r, _ in part]), torch.tensor([n for _, n in part])) for part in parts]

    def train_dataloader(self) -> TensorLoader:
        return TensorLoader(*self._split(0), batch_size=self.batch_size, shuffle=True, seed=self.seed)

    def val_dataloader(self) -> TensorLoader:
        return TensorLoader(*self._split(1), batch_size=256)

    def test_dataloader(self) -> TensorLoader:
        return TensorLoader(*self._split(2), batch_size=256)

    def _split(self, number: int) -> tuple[Tensor, Tensor]:
        assert self.splits is not None  # setup has run
        return self.splits[number]

    def _texts(self, package: str) -> list[tuple[str, str]]:
        texts = list(islice(_docstrings(package), self.count))
        if len(texts) < self.count:
            raise ValueError(f"need {self.count} docstrings of {package!r}, got {len(texts)}: lower count")
        return texts

    def numbered(self, words: Sequence[str]) -> list[int]:
        """At most ``length`` numbers of the words of a text."""
        return [1 + crc32(word.encode()) % (self.words - 1) for word in words[: self.length]]

    def _row(self, text: str) -> list[int]:
        numbers = self.numbered([word for word in _words(text) if word not in self.packages])
        return numbers + [0] * (self.length - len(numbers))


def _docstrings(package: str) -> Iterator[tuple[str, str]]:
    """File and text of each docstring, the files in an order that mixes the parts of the package."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"need installed packages, got {package!r}")
    root = Path(next(iter(spec.submodule_search_locations)))
    files = [(str(path.relative_to(root)), path) for path in root.rglob("*.py") if "tests" not in path.parts]
    for name, path in sorted(files, key=lambda file: crc32(file[0].encode())):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                text = ast.get_docstring(node) or ""
                if len(_words(text)) >= _FEWEST:
                    yield name, text


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d", text.lower())
