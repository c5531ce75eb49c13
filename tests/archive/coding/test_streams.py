import numpy as np
import pytest
from scipy import stats

from lightning_compress.archive.coding import streams
from lightning_compress.archive.coding.cursors import ArchiveError, Cursor, golomb, unzigzag, varint, zigzag
from lightning_compress.archive.coding.streams import (
    UNIT,
    Coded,
    Plain,
    entropy,
    frequencies,
    least_bytes,
    round_roots,
    shorter,
)


def draws(alphabet, count, peak, seed=0):
    random = np.random.default_rng(seed)
    weights = np.exp(-0.5 * ((np.arange(alphabet) - alphabet // 2) / (alphabet / 6)) ** 2)
    weights[alphabet // 2] += peak * weights.sum()
    return random.choice(alphabet, count, p=weights / weights.sum())


def decode(stream, count):
    again = Coded.read(Cursor(stream.to_bytes()), count)
    assert again == stream
    return np.concatenate(list(again.chunks()))


@pytest.mark.parametrize("alphabet", [1, 2, 3, 15, 255, 4097])
@pytest.mark.parametrize("count", [1, 100, 1000, 100_000])
@pytest.mark.parametrize("peak", [0, 9, 999])
def test_symbols_come_back(alphabet, count, peak):
    symbols = draws(alphabet, count, peak)

    assert np.array_equal(decode(Coded.of(symbols), count), symbols)


@pytest.mark.parametrize(("alphabet", "peak"), [(3, 0), (3, 9), (15, 0), (15, 49), (255, 0), (255, 9)])
def test_length_is_the_entropy(alphabet, peak):
    symbols = draws(alphabet, 300_000, peak)

    bound = 300_000 * stats.entropy(np.bincount(symbols), base=2) / 8

    assert entropy(np.bincount(symbols)) / 8 == pytest.approx(bound)
    # A quarter of a bit per symbol of the alphabet for rounding, and a few bytes for the end of the coder.
    assert len(Coded.of(symbols).body) <= bound + alphabet / 4 / 8 + 8
    assert len(Coded.of(symbols).to_bytes()) <= 1.01 * bound


def test_chunks_bound_what_is_decoded_at_a_time(monkeypatch):
    monkeypatch.setattr(streams, "CHUNK", 1000)
    symbols = draws(15, 3500, 1)

    for stream in (Coded.of(symbols), Plain(symbols.astype(np.uint8).tobytes()), Coded.of(symbols * 0 + 7)):
        chunks = list(stream.chunks())
        assert [chunk.size for chunk in chunks] == [1000, 1000, 1000, 500]
    assert np.array_equal(np.concatenate(list(Coded.of(symbols).chunks())), symbols)


def test_symbols_do_not_depend_on_the_chunks(monkeypatch):
    symbols = draws(255, 5000, 1)
    whole = Coded.of(symbols)

    monkeypatch.setattr(streams, "CHUNK", 700)

    assert Coded.of(symbols) == whole
    assert np.array_equal(decode(whole, 5000), symbols)


@pytest.mark.parametrize("roots", [[1], [1, 0], [0, 0, 5], [3, 3, 3], [2**31, 1, 0, 77], list(range(4097))])
def test_frequencies_are_positive_and_sum_to_one(roots):
    result = frequencies(roots)

    assert sum(result) == UNIT
    assert min(result) >= 1


def test_rounded_root_is_the_nearest_integer():
    counts = [*range(2000), 10**12 - 1, 10**12, 10**12 + 10**6 + 1]

    assert round_roots(np.array(counts)) == [round(count**0.5) for count in counts]


def test_noise_stays_plain_and_structure_is_coded():
    random = np.random.default_rng(0)

    assert isinstance(shorter(random.integers(0, 256, (1, 10_000)).astype(np.uint8))[0], Plain)
    assert isinstance(shorter(random.integers(0, 16, (1, 10_000)).astype(np.uint8))[0], Coded)
    assert shorter(np.empty((2, 0), np.uint8)) == [Plain(b""), Plain(b"")]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 20, 300, 5000])
@pytest.mark.parametrize("largest", [1, 2, 17, 256])
def test_no_plane_takes_less_than_the_bytes_that_are_known_before_it_is_coded(count, largest):
    planes = np.random.default_rng(count).integers(largest, size=(4, count), dtype=np.uint8)
    taken = sum(len(stream.to_bytes()) for stream in shorter(planes))

    assert taken - 40 - 4 * 3 * 256 / 8 <= least_bytes(planes) <= taken  # the table, and what the coder may spare


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**62, 2**63 - 1])
def test_varint_comes_back(value):
    assert Cursor(varint(value)).varint() == value


def test_integers_come_back():
    values = [*range(-300, 300), 2**30, -(2**30)]

    assert [unzigzag(zigzag(value)) for value in values] == values
    assert Cursor(golomb(values)).golomb(len(values)) == values


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80" * 20, "longer than 63 bits"),
        (b"\x80", "need 1 more bytes, got 0"),
        (b"\x00\x00", "0 symbols from 0 on"),
        (b"\xff\x7f\x00", "16383 symbols from 0 on"),
        (b"\x02\xff\x3f", "2 symbols from 8191 on"),
        (b"\x02\x00\x00\x00", "ends too early"),
        (b"\x01\x00" + golomb([-3]), "a probability is negative"),
        (b"\x02\x00" + golomb([0, 0]), "a probability is negative"),
        (b"\x02\x00" + golomb([1, 0]) + varint(9) + b"ab", "need 9 more bytes, got 2"),
    ],
)
def test_a_broken_stream_is_refused(data, message):
    with pytest.raises(ArchiveError, match=message):
        Coded.read(Cursor(data), 5)


@pytest.mark.parametrize(("body", "message"), [(b"ab\0", "end in a zero"), (bytes(range(99)), "left over")])
def test_a_broken_body_is_refused(body, message):
    with pytest.raises(ArchiveError, match=message):
        list(Coded(5, 0, [1, 1], body).chunks())
