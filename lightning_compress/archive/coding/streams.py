"""A stream: many small non-negative integers, stored within a few bytes of their zero-order entropy.

The coder is asymmetric numeral systems (ANS) with a state of 64 bits and words of 32, of the `constriction`
library. Its probabilities are the integers of `frequencies`, in units of 2^-24, which both sides derive from
the stored table with integer arithmetic alone; so every machine decodes the same symbols.

J. Duda, "Asymmetric numeral systems", 2013, https://arxiv.org/abs/1311.2540
R. Bamler, "Understanding entropy coding with asymmetric numeral systems", 2022, https://arxiv.org/abs/2201.01741
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from lightning_compress.archive.coding.cursors import ArchiveError, Cursor, golomb, varint

CHUNK = 1 << 20  # symbols decoded at a time: bounds the memory that decoding needs beside its result
ALPHABET = 1 << 13  # the most different symbols a stream may hold
LONGEST = 64  # symbols in a table for each symbol in the stream, at most: each takes a bit, and a word at most 64
WORTHWHILE = 0.98  # planes are coded if that takes less than this part: not those of a mantissa
LEAST = 3  # bytes of a coded stream: the size of its table, the lowest symbol, a root
SPARED = 8  # bytes that the coder takes less than the entropy, at most
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
    if max(roots) < 1 << 18:  # the products below fit in 64 bits
        squared = np.array(roots, np.int64) ** 2
        shares = 1 + squared * (UNIT - len(roots)) // squared.sum()
        shares[squared.argmax()] += UNIT - shares.sum()
        return shares.tolist()  # type: ignore[no-any-return]
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
    def of(cls, symbols: NDArray[Any], counts: NDArray[np.int64] | None = None) -> "Coded":
        """Encode symbols, shape [count], from 0 to `ALPHABET` - 1; `counts` says how often each occurs, if known."""
        if counts is None:
            counts = count_symbols(symbols)
        low = int(np.flatnonzero(counts)[0])
        roots = round_roots(counts[low:])
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
        table = self._table
        return table if len(self.roots) == 1 else b"".join([table, varint(len(self.body)), self.body])

    @cached_property
    def _table(self) -> bytes:
        steps = [after - before for before, after in pairwise([0, *self.roots])]
        return varint(len(self.roots)) + varint(self.low) + golomb(steps)

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


def shorter(planes: NDArray[np.uint8]) -> list[Plain | Coded]:
    """Streams of bytes, shape [P, count], each plain or coded: coded where that is worth the time to decode it."""
    most = WORTHWHILE * planes.shape[1]
    if most <= LEAST:
        return [Plain(plane.tobytes()) for plane in planes]
    counts, low, end, bits = _weighed(planes)
    streams: list[Plain | Coded] = []
    for plane, counted, first, last, least in zip(planes, counts, low, end, bits, strict=True):
        coded = Coded.of(plane, counted[:last]) if least + last - first < 8 * most else None
        shortest = coded if coded and len(coded.to_bytes()) < most else None
        streams.append(shortest or Plain(plane.tobytes()))
    return streams


def least_bytes(planes: NDArray[np.uint8]) -> float:
    """Bytes that `shorter` takes for planes, shape [P, count], at least; nothing is coded to know it."""
    count = planes.shape[1]
    if WORTHWHILE * count <= LEAST:
        return float(planes.size)
    _, low, end, bits = _weighed(planes)
    coded = LEAST + np.maximum(0, (bits + end - low) / 8 - 1 - SPARED)
    return float(np.minimum(coded, count).sum())


def _weighed(planes: NDArray[np.uint8]) -> tuple[NDArray[Any], ...]:
    """How often each byte occurs, the lowest byte, the highest one plus 1, and the zero-order entropy in bits."""
    counts = _count_bytes(planes)
    found = counts > 0
    bits = (counts * np.log2(planes.shape[1] / np.maximum(counts, 1))).sum(axis=1)
    return counts, found.argmax(axis=1), 256 - found[:, ::-1].argmax(axis=1), bits


def _count_bytes(planes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each byte occurs, shape [P, 256]."""
    counts = np.zeros((len(planes), 256), np.int64)
    offsets = 256 * np.arange(len(planes))[:, None]
    for start in range(0, planes.shape[1], CHUNK):
        part = planes[:, start : start + CHUNK] + offsets
        counts += np.bincount(part.ravel(), minlength=counts.size).reshape(counts.shape)
    return counts


def stream_entropy(stream: Stream) -> float:
    """The zero-order entropy of a stream in bits: the least that coding its symbols one by one can take."""
    counts = sum((np.bincount(chunk, minlength=ALPHABET) for chunk in stream.chunks()), np.zeros(ALPHABET))
    return entropy(counts)


def round_roots(counts: NDArray[np.int64]) -> list[int]:
    """The nearest integers to sqrt(count), but at least 1 if a count is not 0.

    Example:
        >>> round_roots(np.array([0, 1, 2, 3, 12, 13]))
        [0, 1, 1, 2, 3, 4]
    """
    roots = np.sqrt(4 * counts).astype(np.int64)
    roots -= roots * roots > 4 * counts  # what the square root of floating point rounded up
    return (roots + 1 >> 1).tolist()  # type: ignore[no-any-return]


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
