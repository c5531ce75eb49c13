"""Docstrings as the word pieces of a pretrained encoder."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import AutoTokenizer

from examples.adapters.models import source
from examples.text import DocstringData

__all__ = ["EncodedDocstrings"]


class EncodedDocstrings(DocstringData):
    """Docstrings ``(N, length)`` as numbers of word pieces, 0 for padding; the label of a docstring is its package.

    Args:
        encoder: as that of :class:`Encoder <examples.adapters.models.Encoder>`; its tokenizer is used.
        packages: names of installed packages with Python sources.
        count: docstrings of each package.
        length: number of word pieces kept of a docstring.
        batch_size: docstrings in a batch.
        seed: seed of the order of training docstrings.

    Raises:
        ValueError: a package is not installed, or has fewer than ``count`` docstrings.
    """

    def __init__(
        self,
        encoder: str = "sentence-transformers/all-MiniLM-L6-v2",
        packages: Sequence[str] = ("numpy", "scipy", "sklearn", "torch"),
        count: int = 1000,
        length: int = 32,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(packages=packages, count=count, length=length, batch_size=batch_size, seed=seed)
        self.encoder = encoder

    def setup(self, stage: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(source(self.encoder))
        super().setup(stage)

    def numbered(self, words: Sequence[str]) -> list[int]:
        text = " ".join(words[: self.length])  # a word has at least one piece
        numbers: list[int] = self.tokenizer(text, truncation=True, max_length=self.length)["input_ids"]
        return numbers
