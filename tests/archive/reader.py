"""A second reader of the format, written from docs/archive.md in plain Python, without the coder library."""

import json
import zlib
from hashlib import blake2b
from math import prod

import numpy as np


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        assert self.at <= len(self.data)
        return self.data[self.at - n : self.at]

    def varint(self):
        byte = self.take(1)[0]
        return byte if byte < 128 else byte - 128 + 128 * self.varint()

    def signed(self):
        value = self.varint()
        return -(value + 1) // 2 if value % 2 else value // 2

    def golomb(self, n):
        bits = "".join(f"{byte:08b}" for byte in self.data[self.at :])
        values, at = [], 0
        for _ in range(n):
            zeros = 0
            while bits[at + zeros] == "0":
                zeros += 1
            value = int(bits[at + zeros : at + 2 * zeros + 1], 2) - 1
            values.append(-(value + 1) // 2 if value % 2 else value // 2)
            at += 2 * zeros + 1
        self.at += -(-at // 8)
        return values

    def coded(self, n):
        size, low = self.varint(), self.varint()
        roots, root = [], 0
        for step in self.golomb(size):
            root += step
            roots.append(root)
        if size == 1:
            return [low] * n
        words = self.take(self.varint())
        words += bytes(-len(words) % 4)
        words = [int.from_bytes(words[i : i + 4], "little") for i in range(0, len(words), 4)]
        total = sum(r * r for r in roots)
        f = [1 + r * r * (2**24 - size) // total for r in roots]
        f[roots.index(max(roots))] += 2**24 - sum(f)
        state, out = 0, []
        while words and state < 2**32:
            state = state << 32 | words.pop()
        for _ in range(n):
            quantile, symbol, below = state % 2**24, 0, 0
            while below + f[symbol] <= quantile:
                below += f[symbol]
                symbol += 1
            state = (state >> 24) * f[symbol] + quantile - below
            if state < 2**32 and words:
                state = state << 32 | words.pop()
            out.append(low + symbol)
        assert state == 0
        assert not words
        return out

    def dense(self, n, width, rotated):
        mask, words = self.take(1)[0], [0] * n
        for plane in range(width):
            symbols = self.coded(n) if mask >> plane & 1 else self.take(n)
            words = [word | symbol << 8 * plane for word, symbol in zip(words, symbols, strict=True)]
        bits = 8 * width
        return [word >> 1 | (word & 1) << bits - 1 for word in words] if rotated else words

    def palette(self, n, width, rotated):
        size, others = self.varint(), self.varint()
        entries, entry = [], 0
        for step in self.dense(size, width, False):
            entry = (entry + step) % 2 ** (8 * width)
            entries.append(entry)
        codes = self.coded(n)
        rest = iter(self.dense(others, width, rotated))
        return [entries[code] if code < size else next(rest) for code in codes]

    def grid(self, n, width, rotated, row=1):
        """Of float32 only."""
        count, low = self.varint(), self.signed()
        scales = np.array(self.dense(count, width, rotated), "<u4").view("<f4").reshape(-1, 1, row)
        values = np.array([code - 1 + low if code else -0.0 for code in self.coded(n)], "<f4")
        return (values.reshape(len(scales), -1, row) * scales).reshape(-1).view("<u4").tolist()

    def columns(self, n, width, rotated):
        row = self.varint()
        return self.grid(n, width, rotated, row)


DTYPES = ["float32", "float64", "float16", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool"]
DTYPES += ["uint16", "uint32", "uint64", "complex32", "complex64", "complex128"]
WIDTHS = [4, 8, 2, 2, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8]


def read(data):
    """The tensors of an archive, of the first 16 dtypes: name -> (dtype, shape, bytes)."""
    return read_all(data)[0]


def read_all(data):
    """The tensors; the records, with such a triple in place of each tensor; whether the tensors alone are the model."""
    assert data[:4] == b".lcz"
    assert data[4] in (1, 2)
    assert int.from_bytes(data[5:11], "little") == len(data)
    assert blake2b(data[:-8], digest_size=8).digest() == data[-8:]
    start = 14 + int.from_bytes(data[11:14], "little")
    header = Reader(zlib.decompress(data[14:start], -15))
    blocks, members, owners, result = [], [], [], {}

    def entry():
        place = header.varint()
        owners.append(owners[place // 2] if place % 2 else len(owners))
        if place % 2:
            return
        if place == 0:
            blocks.append((header.take(1)[0], header.varint()))
            members.append([])
        shape = tuple(header.varint() for _ in range(header.varint()))
        members[place // 2 - 1 if place else -1].append((owners[-1], shape))

    names, records, complete = [], {}, True
    for _ in range(header.varint()):
        names.append(header.take(header.varint()).decode())
        entry()
    if data[4] == 2:
        for _ in range(header.varint()):
            entry()
        complete = bool(header.varint())
        records = json.loads(header.take(header.varint()))
    assert header.at == len(header.data)
    for (number, size), inside in zip(blocks, members, strict=True):
        block, start = Reader(data[start : start + size]), start + size
        dtype, width = DTYPES[number], WIDTHS[number]
        parts = 2 if "complex" in dtype else 1
        form = (block.dense, block.palette, block.grid, block.columns)[block.take(1)[0]]
        words = iter(form(sum(prod(shape) for _, shape in inside) * parts, width, "float" in dtype or parts == 2))
        assert block.at == size
        for position, shape in inside:
            content = b"".join(next(words).to_bytes(width, "little") for _ in range(prod(shape) * parts))
            result[position] = dtype, shape, content
    assert start == len(data) - 8
    tensors = [result[owner] for owner in owners]
    return dict(zip(names, tensors, strict=False)), revived(records, tensors), complete


def revived(value, tensors):
    if isinstance(value, list):
        return [revived(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if list(value) == ["#tensor"]:
        return tensors[value["#tensor"]]
    if list(value) == ["#tuple"]:
        return tuple(revived(value["#tuple"], tensors))
    return {key[key.startswith("##") :]: revived(item, tensors) for key, item in value.items()}
