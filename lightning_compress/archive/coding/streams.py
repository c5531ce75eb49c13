"""A stream: many small non-negative integers, stored within a few bytes of their zero-order entropy.

The coder is asymmetric numeral systems (ANS) with a state of 64 bits and words of 32, of the `constriction`
library. Its probabilities are the integers of `frequencies`, in units of 2^-24, which both sides derive from
the stored table with integer arithmetic alone; so every machine decodes the same symbols.

J. Duda, "Asymmetric numeral systems", 2013, https://arxiv.org/abs/1311.2540
R. Bamler, "Understanding entropy coding with asymmetric numeral systems", 2022, https://arxiv.org/abs/2201.01741
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import isqrt
from typing import Any, Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from lightning_compress.archive.coding.cursors import ArchiveError, Cursor, golomb, varint

CHUNK = 1 << 20  # symbols decoded at a time: bounds the memory that decoding needs beside its result
ALPHABET = 1 << 13  # the most different symbols a stream may hold
LONGEST = 64  # symbols in a table for each symbol in the stream, at most: each takes a bit, and a word at most 64
WORTHWHILE = 0.98  # planes are coded if that takes less than this part: not those of a mantissa
UNIT = 1 << 24  # probabilities are integers that sum to this: the precision of the coder


def frequencies(roots: list[int]) -> list[int]:
    """The probability of every symbol in units of 2^-24, from the rounded square roots of the counts.

        f_i = 1 + floor(r_i^2 (2^24 - K) / sum_j r_j^2),    K = len(roots),

    and the remainder up to 2^24 goes to the first of the largest r. On the scale of square roots
    all counts are equally uncertain: rounding costs a quarter of a bit per symbol of the alphabet, not of the
    stream.

    Example:
        >>> frequencies([1, 3, 0])
        [1677722, 15099493, 1]
    """
    squares = [root * root for root in roots]
    total = sum(squares)
    result = [1 + square * (UNIT - len(roots)) // total for square in squares]
    result[roots.index(max(roots))] += UNIT - sum(result)
    return result


def entropy(counts: NDArray[Any]) -> float:
    """The zero-order entropy in bits of symbols that occur `counts` times: sum_i c_i log2(n / c_i).

    Example:
        >>> entropy(np.array([4, 4, 0]))
        8.0
    """
    present = counts[counts > 0].astype(np.float64)
    return float(np.sum(present * np.log2(present.sum() / present)))


def count_symbols(symbols: NDArray[Any]) -> NDArray[np.int64]:
    """How often each of the integers from 0 to the largest symbol occurs.

    Example:
        >>> count_symbols(np.array([0, 2, 2], np.uint8)).tolist()
        [1, 0, 2]
    """
    size = int(symbols.max()) + 1
    chunks = (symbols[start : start + CHUNK] for start in range(0, symbols.size, CHUNK))
    return sum((np.bincount(chunk, minlength=size) for chunk in chunks), np.zeros(size, np.int64))


class Stream(Protocol):
    """A run of symbols as it is stored."""

    def to_bytes(self) -> bytes:
        """The stored bytes; the number of symbols is known from elsewhere."""
        ...

    def chunks(self) -> Iterator[NDArray[Any]]:
        """Decode the symbols in order, at most `CHUNK` at a time."""
        ...


@dataclass(frozen=True)
class Plain:
    """Symbols below 256, each as a byte."""

    body: bytes | memoryview

    def to_bytes(self) -> bytes:
        return bytes(self.body)

    def chunks(self) -> Iterator[NDArray[Any]]:
        for start in range(0, len(self.body), CHUNK):
            yield np.frombuffer(self.body[start : start + CHUNK], np.uint8)


@dataclass(frozen=True)
class Coded:
    """`count` symbols low ... low + len(roots) - 1, entropy coded.

    Attributes:
        count: how many symbols, at least one.
        low: the smallest symbol.
        roots: rounded square roots of how often low, low + 1, ... occur.
        body: the words of the coder; empty if all symbols are equal.
    """

    count: int
    low: int
    roots: list[int]
    body: bytes | memoryview

    @classmethod
    def of(cls, symbols: NDArray[Any]) -> "Coded":
        """Encode symbols, shape [count], from 0 to `ALPHABET` - 1."""
        counts = count_symbols(symbols)
        low = int(np.flatnonzero(counts)[0])
        roots = [round_root(count) for count in counts[low:].tolist()]
        return cls(symbols.size, low, roots, _encode(symbols, low, roots))

    @classmethod
    def read(cls, cursor: Cursor, count: int, alphabet: int = ALPHABET) -> "Coded":
        """Parse the stream of `count` symbols below `alphabet`; nothing is decoded."""
        size, low = cursor.varint(), cursor.varint()
        # A longer table takes more bytes than plain words, so the writer has none; to parse it would take its time.
        if not 0 < size <= min(alphabet - low, LONGEST * (count + 1)):
            raise ArchiveError(f"the archive is damaged: {size} symbols from {low} on")
        roots = list(accumulate(cursor.golomb(size)))
        if min(roots) < 0 or max(roots) == 0:
            raise ArchiveError("the archive is damaged: a probability is negative")
        return cls(count, low, roots, b"" if size == 1 else cursor.view(cursor.varint()))

    def to_bytes(self) -> bytes:
        steps = [after - before for before, after in pairwise([0, *self.roots])]
        table = varint(len(self.roots)) + varint(self.low) + golomb(steps)
        return table if len(self.roots) == 1 else b"".join([table, varint(len(self.body)), self.body])

    def chunks(self) -> Iterator[NDArray[Any]]:
        sizes = [min(CHUNK, self.count - start) for start in range(0, self.count, CHUNK)]
        if len(self.roots) == 1:
            yield from (np.full(size, self.low, np.int32) for size in sizes)
            return
        if self.body[-1:] == b"\0":
            raise ArchiveError("the archive is damaged: coded symbols end in a zero")
        words = np.frombuffer(b"".join([self.body, bytes(-len(self.body) % 4)]), "<u4").astype(np.uint32)
        coder, model = constriction.stream.stack.AnsCoder(words), _model(self.roots)
        for size in sizes:
            yield coder.decode(model, size) + np.int32(self.low)
        if not coder.is_empty():
            raise ArchiveError("the archive is damaged: coded symbols are left over")


def shorter(symbols: NDArray[np.uint8]) -> Plain | Coded:
    """Bytes, shape [count], plain or coded: coded where that is worth the time to decode it."""
    most = WORTHWHILE * symbols.size
    if not symbols.size:
        return Plain(b"")
    table = int(symbols.max()) - int(symbols.min()) + 1  # bits, at least
    if entropy(count_symbols(symbols)) + table >= 8 * most:
        return Plain(symbols.tobytes())
    coded = Coded.of(symbols)
    return coded if len(coded.to_bytes()) < most else Plain(symbols.tobytes())


def stream_entropy(stream: Stream) -> float:
    """The zero-order entropy of a stream in bits: the least that coding its symbols one by one can take."""
    counts = sum((np.bincount(chunk, minlength=ALPHABET) for chunk in stream.chunks()), np.zeros(ALPHABET))
    return entropy(counts)


def round_root(count: int) -> int:
    """The nearest integer to sqrt(count), but at least 1 if the count is not 0."""
    return max(isqrt(4 * count) + 1 >> 1, min(count, 1))


def _model(roots: list[int]) -> Any:
    # The library scales its weights to a sum of 2^24 - K, then adds 1 to each. The f_i - 1 have that
    # sum: the factor is exactly 1, all partial sums are integers, exact in floating point; it uses our f_i.
    weights = np.array(frequencies(roots), np.float64) - 1
    return constriction.stream.model.Categorical(weights, perfect=False)


def _encode(symbols: NDArray[Any], low: int, roots: list[int]) -> bytes:
    if len(roots) == 1:
        return b""
    coder, model = constriction.stream.stack.AnsCoder(), _model(roots)
    last = (symbols.size - 1) // CHUNK * CHUNK
    for start in range(last, -1, -CHUNK):  # the coder is a stack: the first to be decoded goes in last
        coder.encode_reverse((symbols[start : start + CHUNK] - low).astype(np.int32), model)
    words: NDArray[np.uint32] = coder.get_compressed()
    return words.astype("<u4").tobytes().rstrip(b"\0")  # the last word is not zero, so it can be restored
