import lzma

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_compress.archive.coding.cursors import ArchiveError, varint
from lightning_compress.archive.coding.words import Layout, bytes_of, rotate_left, rotate_right, words_of
from lightning_compress.archive.forms import selection
from lightning_compress.archive.forms.selection import encode, read_form


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pruned(weight, sparsity):
    return torch.where(weight.abs() > weight.abs().quantile(sparsity), weight, 0.0)


def on_grid(weight, bits):
    step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (weight / step).round().long() * step


def round_trip(tensor):
    """The form, its length, and its bound; the elements come back."""
    data = b"".join(encode(tensor))
    form = read_form(data, tensor.numel(), tensor.dtype)
    out = torch.empty(tensor.numel() * tensor.dtype.itemsize, dtype=torch.uint8).view(tensor.dtype)
    form.fill(out)
    assert torch.equal(bytes_of(out), bytes_of(tensor))
    return form, len(data), form.bound() / 8


def entropy_bytes(symbols):
    counts = np.unique(np.asarray(symbols), return_counts=True)[1]
    return symbols.size * stats.entropy(counts, base=2) / 8


@pytest.mark.parametrize("sparsity", [0, 0.5, 0.9, 0.95, 0.98])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_grid_takes_the_entropy_of_its_integers(sparsity, bits):
    weight = normal(300, 784).clamp(-3, 3)
    step = 3 / (2 ** (bits - 1) - 1)
    integers = (pruned(weight, sparsity) / step).round().long()

    form, length, bound = round_trip(integers * torch.tensor(step))

    assert form.name == "grid"
    assert bound == pytest.approx(entropy_bytes(integers.numpy()) + 4)
    assert length <= 1.01 * bound


@pytest.mark.parametrize("shape", [(64, 200), (16, 8, 5, 5)])
def test_a_scale_per_channel(shape):
    weight = on_grid(normal(shape[0], 200), 8).view(shape)

    form, length, bound = round_trip(weight)

    assert form.name == "grid"
    assert form.scales.numel() == shape[0]
    assert length <= 1.01 * bound + 60


def test_a_scale_per_group():
    form, *_ = round_trip(on_grid(normal(1024, 64), 4).view(128, 512))

    assert form.name == "grid"
    assert form.scales.numel() == 1024


@pytest.mark.parametrize("groups", [1, 7])
def test_a_scale_per_channel_or_group_of_a_weight_that_has_its_inputs_first(groups):
    weight = on_grid(normal(64 * groups, 32), 8).view(64, groups * 32)

    form, length, _ = round_trip(weight.t().contiguous())
    other, expected, _ = round_trip(weight)

    assert form.name == other.name == "grid"
    assert torch.equal(form.scales.view(groups, 64).t().flatten(), other.scales)
    assert abs(length - expected) <= 4


def test_negative_zeros_are_codes_of_a_grid():
    weight = (normal(50, 200) * 2).round() * 0.1

    form, *_ = round_trip(weight)

    assert form.name == "grid"
    assert ((weight == 0) & weight.signbit()).any()


def test_few_values_are_a_palette():
    centers = normal(16, seed=1)
    codes = torch.randint(16, (300, 300), generator=torch.Generator().manual_seed(0))

    form, length, bound = round_trip(centers[codes])

    assert form.name == "palette"
    assert bound == pytest.approx(entropy_bytes(codes.numpy()) + 64)
    assert length <= 1.01 * bound


def test_zeros_among_plain_weights_are_sparse():
    weight = pruned(normal(300, 300), 0.9)

    form, length, _ = round_trip(weight)

    assert form.name == "sparse"
    mask = entropy_bytes((weight != 0).numpy())
    assert length < mask + 0.9 * 4 * int((weight != 0).sum())


def test_plain_weights_are_dense_and_smaller_than_lzma_makes_them():
    weight = normal(300, 300)

    form, length, _ = round_trip(weight)

    assert form.name == "dense"
    assert length < len(lzma.compress(weight.numpy().tobytes()))


def test_noise_takes_hardly_more_than_its_bytes():
    noise = torch.randint(-(2**63), 2**63 - 1, (1000,), generator=torch.Generator().manual_seed(0))

    form, length, _ = round_trip(noise)

    assert form.name == "dense"
    assert length == noise.nbytes + 2


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64])
def test_small_integers_take_their_entropy(dtype):
    integers = (normal(200, 200) * 20).round().to(dtype)

    _, length, _ = round_trip(integers)

    assert length <= 1.01 * entropy_bytes(integers.numpy()) + 80


@pytest.mark.parametrize("elements", [100, 100_000])
def test_what_was_weighed_is_not_encoded_again_to_be_written(elements, monkeypatch):
    encode(normal(elements, seed=3))
    encoded = []
    monkeypatch.setattr(selection, "_shortest", lambda tensor: encoded.append(tensor) or [b""])

    encode(normal(elements, seed=3))
    assert not encoded
    encode(normal(elements, seed=4))
    assert len(encoded) == 1


def test_forms_that_are_remembered_take_bounded_memory(monkeypatch):
    monkeypatch.setattr(selection, "REMEMBERED", 10_000)
    monkeypatch.setattr(selection, "_REMEMBERED", memory := selection._Memory())
    for seed in range(40):
        encode(normal(1000, seed=seed))  # about 3,700 bytes
    encode(normal(5000))  # more than is remembered at all

    assert len(memory) == 2
    assert sum(len(piece) for pieces in memory.values() for piece in pieces) < 10_000


def test_nothing_takes_two_bytes():
    assert round_trip(torch.empty(0))[1] == 2


def test_rotation_moves_the_sign_below_the_mantissa():
    words = words_of(torch.tensor([-1.0, 1.0]))

    assert rotate_left(words).tolist() == [0x7F000001, 0x7F000000]
    assert np.array_equal(rotate_right(rotate_left(words)), words)
    assert Layout.of(torch.complex128) == (torch.complex128, 2, 8, True)
    assert Layout.of(torch.float8_e5m2) == (torch.float8_e5m2, 1, 1, False)


@pytest.mark.parametrize(
    ("data", "dtype", "message"),
    [
        (b"", torch.float32, "need 1 more bytes"),
        (b"\x04", torch.float32, "need a form below 4, got 4"),
        (b"\x00\x10", torch.float32, "4 bytes per word, but streams 10000"),
        (b"\x00\x00" + bytes(41), torch.float32, "1 bytes are left over"),
        (b"\x01\x00\x00", torch.float32, "a palette of 0 and 0 others for 10 words"),
        (b"\x01" + varint(4097) + b"\x00", torch.float32, "a palette of 4097"),
        (b"\x01\x01\x0b", torch.float32, "a palette of 1 and 11 others for 10 words"),
        (b"\x02\x03\x00", torch.float32, "3 scales for 10 elements"),
        (b"\x02\x00\x00", torch.float32, "0 scales for 10 elements"),
        (b"\x02\x01\x00", torch.int32, "1 scales for 10 elements of torch.int32"),
        (b"\x03\x02\x05\x00" + b"\x00" + bytes(20) + b"\x01\x00\x60", torch.float32, "5 scales for rows of 2"),
        (b"\x03\x00\x05\x00" + b"\x00" + bytes(20) + b"\x01\x00\x60", torch.float32, "5 scales for rows of 0"),
        (b"\x03\x02\x04\x00", torch.float32, "4 scales for 10 elements"),
    ],
)
def test_a_broken_form_is_refused(data, dtype, message):
    with pytest.raises(ArchiveError, match=message):
        read_form(data, 10, dtype)


@pytest.mark.parametrize(
    ("others", "code", "message"),
    [
        (0, 1, "a code has no entry"),
        (1, 2, "a code has no entry"),
        (1, 1, "a value is missing"),
        (1, 0, "left over"),
    ],
)
def test_codes_must_match_the_palette_and_the_rest(others, code, message):
    entry, rest = b"\x00" + bytes(4), b"\x00" + bytes(4 * others)
    codes = b"\x01" + bytes([code]) + b"\x60"  # one symbol, ten times
    form = read_form(b"\x01\x01" + bytes([others]) + entry + codes + rest, 10, torch.float32)

    with pytest.raises(ArchiveError, match=message):
        form.fill(torch.empty(10))
