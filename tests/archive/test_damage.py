import random
import tracemalloc
import zlib

import pytest
import torch

from lightning_compress.archive import ArchiveError, inspect_archive, load_archive, read_archive, save_archive
from lightning_compress.archive.coding.cursors import golomb, varint
from lightning_compress.archive.coding.headers import Block, Entry, Header, write_header
from tests.support.hostile import mutated, sealed


def test_every_truncation_is_refused(model, path):
    save_archive(model, path)
    data = path.read_bytes()

    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ArchiveError, match="truncated"):
            load_archive(path)


def test_mutations_are_refused(model, path):
    save_archive(model, path)
    data = path.read_bytes()
    chance = random.Random(0)

    for _ in range(10_000):
        path.write_bytes(mutated(data, chance))
        with pytest.raises(ArchiveError):
            load_archive(path)


def test_forged_archives_load_or_are_refused(model, path):
    """With the checksum made right again, every parser meets bad input: it refuses, or finds some tensors."""
    save_archive(model, path, {"grids": {"w": {"scale": model["dense.bias"], "low": -7}}, "shapes": [1, (2, 3)]})
    data = path.read_bytes()
    chance = random.Random(0)
    refused = 0

    tracemalloc.start()
    for _ in range(500):
        path.write_bytes(sealed(data[:14] + mutated(data[14:-8], chance)))
        try:
            read_archive(path, max_bytes=1 << 20)
        except ArchiveError:
            refused += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert 100 < refused < 500
    assert peak < 1 << 24


def forged(header, blocks=b""):
    """An archive of a header and blocks of one's own."""
    return sealed(b".lcz\x01" + bytes(6) + len(header).to_bytes(3, "little") + header + blocks)


def test_a_newer_version_says_so(model, path):
    save_archive(model, path)
    data = path.read_bytes()

    path.write_bytes(data[:4] + b"\x03" + data[5:])

    with pytest.raises(ArchiveError, match="written by a newer version: need format 2, got 3"):
        load_archive(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"PK\x03\x04" + data[4:], "this is not an archive"),
        (lambda data: b"PK", "this is not an archive"),
        (lambda data: b"", "truncated: need 22 bytes, got 0"),
        (lambda data: data + b"\0", "altered: need"),
        (lambda data: data[:4] + b"\0" + data[5:], "there is no format 0"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "its checksum does not match"),
        (lambda data: sealed(data[:-8] + b"\0"), "its blocks do not fill the file"),
        (lambda data: sealed(data[:13] + b"\xff" + data[14:-8]), "does not inflate|too long"),
    ],
)
def test_the_message_says_what_is_wrong(change, message, model, path):
    save_archive(model, path)
    path.write_bytes(change(path.read_bytes()))

    for read in (load_archive, inspect_archive):
        with pytest.raises(ArchiveError, match=f"({message}).* \\(in '{path}'\\)$"):
            read(path)


def table(symbols):
    """A dense block of one float32 whose lowest stream has a table of so many equal probabilities."""
    return b"\0\1" + varint(symbols) + varint(0) + golomb([1] + [0] * (symbols - 1)) + varint(1) + b"\1" + bytes(3)


@pytest.mark.parametrize("symbols", [129, 256, 257, 8192])
def test_a_table_for_one_element_is_short(symbols, path):
    """A long one takes 17 ms, and a file of a megabyte holds a thousand."""
    data = table(symbols)
    entry = write_header(Header([Entry("a", (1,), 0)], [Block(torch.float32, len(data))], 1))
    path.write_bytes(forged(entry, data))
    with pytest.raises(ArchiveError, match=rf"damaged: {symbols} symbols from 0 on"):
        load_archive(path)


def test_a_stream_of_bytes_has_no_larger_symbols(path):
    data = b"\0\1" + varint(300) + varint(0) + golomb([1] + [0] * 299) + varint(1) + b"\1" + bytes(3 * 1000)
    entry = write_header(Header([Entry("a", (1000,), 0)], [Block(torch.float32, len(data))], 1))
    path.write_bytes(forged(entry, data))
    with pytest.raises(ArchiveError, match="damaged: 300 symbols from 0 on"):
        load_archive(path)


def test_a_chain_of_ties_is_followed(path):
    """A tensor may be tied to one that is tied itself; 100,000 of them are one tensor."""
    save_archive({"a": torch.ones(1)}, path)
    data = path.read_bytes()
    first = Entry("a", (1,), 0)
    chain = [first, *(Entry(f"{number}", (1,), 0, number) for number in range(100_000))]
    size = int.from_bytes(data[11:14], "little")
    block = data[14 + size : -8]
    path.write_bytes(forged(write_header(Header(chain, [Block(torch.float32, len(block))], len(chain))), block))
    loaded = load_archive(path)
    assert len(loaded) == 100_001
    assert loaded["99999"] is loaded["a"]


def header(*entries):
    return write_header(Header(list(entries), [Block(torch.float32, 2)], len(entries)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (header(Entry("a", (0,), 0), Entry("a", (0,), 0)), "has a name twice"),
        (header(Entry("a", (1 << 40, 1 << 40), 0)), "impossible shape"),
        (header(Entry("a", (0, 1 << 62, 4), 0)), "impossible shape"),
        (header(Entry("a", (), 0), Entry("b", (), 0, 7)), "is tied to a tensor that does not come before it"),
        (header(Entry("a", (1 << 40,), 0)), "need max_bytes of at least 4398046511104"),
        (header(Entry("a", (1 << 28, 2), 0)), "need max_bytes of at least 2147483648"),
        (header(Entry("a", (5,), 0)), "need 5 more bytes, got 0"),
    ],
)
def test_a_forged_header_is_refused_before_memory_is_taken(data, message, path):
    path.write_bytes(forged(data, b"\0\0"))

    tracemalloc.start()
    with pytest.raises(ArchiveError, match=message):
        load_archive(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_header_that_inflates_without_end_is_refused(path):
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    path.write_bytes(forged(deflate.compress(bytes(1 << 25)) + deflate.flush()))

    with pytest.raises(ArchiveError, match="too long"):
        load_archive(path)


def test_max_bytes_allows_what_the_default_refuses(path):
    save_archive({"zeros": torch.zeros(1000)}, path)

    with pytest.raises(ArchiveError, match=r"need max_bytes of at least 4000 .* got 3999"):
        load_archive(path, max_bytes=3999)
    assert load_archive(path, max_bytes=4000)["zeros"].numel() == 1000
