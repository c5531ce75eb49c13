import subprocess
import sys
import tracemalloc
from hashlib import blake2b
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_compress.archive import (
    archived_bytes,
    archived_sizes,
    inspect_archive,
    load_archive,
    read_archive,
    save_archive,
)
from lightning_compress.archive.coding.headers import DTYPES
from lightning_compress.archive.layout import SMALL
from tests.archive.reader import read, read_all

ALL_DTYPES = [getattr(torch, name) for name in DTYPES]


def bits(tensor):
    flat = tensor.detach().resolve_conj().resolve_neg()
    flat = flat.view(torch.uint8) if flat.dtype.itemsize == 1 else flat
    return flat.contiguous().reshape(-1).view(torch.uint8)


def noise(shape, dtype, seed=0, alphabet=256):
    count = torch.Size(shape).numel() * dtype.itemsize
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(alphabet, (count,), dtype=torch.uint8, generator=generator).view(dtype).view(shape)


def round_trip(tensors, path):
    save_archive(tensors, path)
    loaded = load_archive(path)
    assert list(loaded) == list(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype, name
        assert loaded[name].shape == tensor.shape, name
        assert torch.equal(bits(loaded[name]), bits(tensor)), name
    assert archived_bytes(tensors) == path.stat().st_size
    return loaded


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
@pytest.mark.parametrize("alphabet", [256, 3])
def test_every_dtype_comes_back(dtype, alphabet, path):
    tensor = noise((6, 50), dtype, alphabet=alphabet)

    loaded = round_trip(
        {
            "noise": tensor,
            "large": noise((SMALL + 1,), dtype, alphabet=alphabet),
            "scalar": noise((), dtype),
            "empty": noise((3, 0, 2), dtype),
            "transposed": tensor.t(),
            "part": tensor[1:, ::7],
            "expanded": tensor[:1, :1].expand(5, 6),
        },
        path,
    )

    assert all(tensor.is_contiguous() for tensor in loaded.values())


def test_all_dtypes_of_torch_are_known():
    dtypes = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}

    assert {str(dtype)[6:] for dtype in dtypes - set(ALL_DTYPES)} == {
        "qint8",
        "qint32",
        "quint8",
        "quint4x2",
        "quint2x4",
    }


def test_the_order_of_dtypes_is_part_of_the_format():
    """If this fails, files written before would be misread: put new dtypes at the end."""
    assert blake2b(" ".join(DTYPES[:41]).encode(), digest_size=4).hexdigest() == "0a7dffb9"


def test_payloads_of_nan_and_signs_of_zero_come_back(path):
    words = torch.tensor([0x7FC00000, 0x7FC00001, -1, 0x7F800000, -0x800000, 0, -(2**31), 1, 0x7F800001])
    special = words.to(torch.int32).view(torch.float32)

    round_trip({"few": special, "many": special.repeat(700), "row": special.repeat(700, 1)}, path)


def test_views_that_are_computed_lazily_come_back(path):
    z = torch.randn(30, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))

    loaded = round_trip({"z": z, "conjugate": z.conj(), "negative": z.conj().imag}, path)

    assert torch.equal(loaded["conjugate"], z.conj())


def test_parameters_and_a_module_come_back(path):
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2))

    round_trip(dict(module.named_parameters()), path)
    round_trip(module.state_dict(), path)
    module.load_state_dict(load_archive(path), strict=True)


def test_tied_tensors_are_stored_once_and_tied_again(path):
    weight = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    alone = archived_bytes({"a": weight})

    loaded = round_trip({"a": weight, "b": weight, "view": weight.view(100, 100), "copy": weight.clone()}, path)

    assert path.stat().st_size < 2 * alone
    assert loaded["a"] is loaded["b"]
    assert loaded["a"] is loaded["view"]
    assert loaded["a"].data_ptr() != loaded["copy"].data_ptr()


def test_other_views_of_one_memory_are_not_tied(path):
    weight = torch.randn(10, 10, generator=torch.Generator().manual_seed(0))

    loaded = round_trip({"a": weight, "t": weight.t(), "flat": weight.view(-1), "z": weight[1:]}, path)

    loaded["a"].zero_()
    assert loaded["t"].any()
    assert loaded["flat"].any()


def test_empty_tensors_are_not_tied(path):
    round_trip({"a": torch.empty(0, 2), "b": torch.empty(0, 2), "c": torch.empty(2, 0)}, path)


def test_small_tensors_are_packed_but_own_their_memory(path):
    generator = torch.Generator().manual_seed(0)
    biases = {f"layers.{i}.bias": torch.randn(16, generator=generator) for i in range(100)}

    loaded = round_trip(biases, path)

    assert path.stat().st_size < 100 * (16 * 4)
    assert loaded["layers.3.bias"].untyped_storage().nbytes() == 64


def test_an_archive_of_nothing(path):
    assert round_trip({}, path) == {}


@pytest.mark.parametrize("name", ["", "ünï.cødé", "a/b c\n", "x" * 1000])
def test_names_come_back(name, path):
    round_trip({name: torch.ones(2)}, path)


def test_a_second_reader_agrees(model, path):
    save_archive({**model, "z": noise((5, 40), torch.complex64), "half": model["palette"].half()}, path)
    loaded = load_archive(path)

    second = read(path.read_bytes())

    assert list(second) == list(loaded)
    for name, (dtype, shape, content) in second.items():
        assert dtype == str(loaded[name].dtype)[6:]
        assert shape == tuple(loaded[name].shape)
        assert content == bits(loaded[name]).numpy().tobytes()


def test_what_cannot_be_archived_is_refused(path):
    with pytest.raises(TypeError, match="need tensors by name, got int for 'epoch'"):
        save_archive({"epoch": 3}, path)
    with pytest.raises(TypeError, match=r"need dense tensors with memory .* meta"):
        save_archive({"w": torch.empty(3, device="meta")}, path)
    with pytest.raises(TypeError, match=r"need dense tensors with memory .* torch\.sparse_coo"):
        save_archive({"w": torch.eye(3).to_sparse()}, path)
    with pytest.raises(ValueError, match=r"need at most .* 64 dimensions"):
        save_archive({"w": torch.ones([1] * 65)}, path)
    assert not path.exists()


def test_a_failed_write_leaves_the_old_file(path):
    save_archive({"w": torch.ones(3)}, path)

    with pytest.raises(TypeError):
        save_archive({"w": torch.ones(4), "epoch": 3}, path)

    assert load_archive(path)["w"].numel() == 3
    assert [file.name for file in path.parent.iterdir()] == ["m.lcz"]


def test_decoding_takes_little_memory_beside_the_result(path):
    """The coder's words and symbols lie in numpy's memory, which is traced; the result in torch's."""
    weight = torch.randint(-7, 8, (4000, 1000), generator=torch.Generator().manual_seed(0)) * 0.01
    save_archive({"weight": weight}, path)

    tracemalloc.start()
    loaded = load_archive(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert torch.equal(loaded["weight"], weight)
    assert peak < 3 * path.stat().st_size + 16 * (1 << 20)


def test_loading_needs_nothing_of_lightning(model, path):
    save_archive(model, path)
    package = Path(sys.modules["lightning_compress.archive"].__file__).parent
    # A stand-in for the package, whose __init__ may import the callbacks, leaves the archive alone.
    code = f"""
import sys, types
package = types.ModuleType("lightning_compress")
package.__path__ = [{str(package.parent)!r}]
sys.modules["lightning_compress"] = package
from lightning_compress.archive import load_archive
assert len(load_archive({str(path)!r})) == {len(model)}
assert not {{name.split(".")[0] for name in sys.modules}} & {{"lightning", "torchmetrics", "jsonargparse"}}
assert sorted(name for name in sys.modules if name.startswith("lightning_compress.archive")) != []
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def records(weight):
    return {
        "quantization": {"scale": torch.tensor([0.5, 0.25]), "tied": weight, "low": -7, "kind": "Affine ü", "on": True},
        "shapes": {"": [1, 2], "#": {}, "##a": [], "#tensor": None, "a": {"#tuple": 3, "b": 1e-300}},
        "pair": (1, ("x", torch.tensor(3))),
        "none": None,
    }


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(bits(one), bits(other))
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


def test_records_come_back(path):
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    given = records(weight)
    save_archive({"w": weight}, path, given)
    found = read_archive(path)
    assert equal(found.records, given)
    assert found.records["quantization"]["tied"] is found.tensors["w"]
    assert list(found.tensors) == ["w"]
    assert found.complete
    assert archived_bytes({"w": weight}, given) == path.stat().st_size


def test_a_second_reader_agrees_on_records(model, path):
    given = records(model["dense.weight"])
    save_archive(model, path, given, complete=False)
    tensors, found, complete = read_all(path.read_bytes())
    assert list(tensors) == list(model)
    assert not complete

    def plain(value):
        if isinstance(value, torch.Tensor):
            return str(value.dtype)[6:], tuple(value.shape), bits(value).numpy().tobytes()
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return type(value)(map(plain, value)) if isinstance(value, list | tuple) else value

    assert found == plain(given)


def test_a_state_dict_that_is_not_the_model_says_so(path):
    save_archive({"w": torch.ones(3)}, path, {"cut": 1}, complete=False)
    with pytest.warns(
        UserWarning, match=r"state dict in m.lcz alone is not the model: .* load_compressed\(Class, 'm.lcz'\)"
    ):
        assert load_archive(path)["w"].numel() == 3


@pytest.mark.filterwarnings("error")
def test_a_state_dict_that_is_the_model_is_loaded_without_a_word(path):
    save_archive({"w": torch.ones(3)}, path, {"grids": 1})
    load_archive(path)


def test_an_archive_without_records_is_of_version_1(path):
    """An earlier reader reads it; and this one the files of that time."""
    save_archive({"w": torch.ones(3)}, path)
    assert path.read_bytes()[4] == 1
    save_archive({"w": torch.ones(3)}, path, {"a": 1})
    assert path.read_bytes()[4] == 2


def test_an_archive_of_the_first_version_is_read(path):
    """Written by the package before it knew records."""
    head, header = "2e6c637a0153000000000020", "000063e648d42b4fcd4ccf28616010666262e648827219598b4b520b8a1938b818"
    blocks = "00020101000000007d0a0174ead305516555fe1300000700000000000000f6f4cf142ccf16f6"
    path.write_bytes(bytes.fromhex(head + header + blocks))
    loaded = load_archive(path)
    assert list(loaded) == ["a.weight", "b.weight", "steps"]
    assert loaded["a.weight"].tolist() == [[0.5, -0.25, 0.0], [1.5, 2.0, 0.75]]
    assert loaded["b.weight"] is loaded["a.weight"]
    assert loaded["steps"].item() == 7


@pytest.mark.parametrize("value", [print, {1: 2}, torch.Size([2]), b"bytes", {"a": [object()]}])
def test_what_is_no_record_is_refused(value, path):
    with pytest.raises(TypeError, match=r"need plain values and tensors in records, got .* for 'key"):
        save_archive({}, path, {"key": value})
    assert not path.exists()


def test_records_are_listed(path):
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    save_archive({"w": weight}, path, records(weight), complete=False)
    contents = inspect_archive(path)
    assert [tensor.name for tensor in contents.tensors] == ["w"]
    assert contents.records["quantization"]["scale"].shape == (2,)
    assert contents.records["quantization"]["tied"].form == "tied"
    assert contents.records["pair"][0] == 1
    assert contents.record_bytes > 0
    assert not contents.complete


def test_sizes_are_those_of_the_file(tmp_path):
    tied = torch.randn(100, 100)
    tensors = {"a": tied, "b": torch.eye(100), "bias": torch.randn(10), "scale": torch.randn(30), "tied": tied}
    save_archive(tensors, tmp_path / "m.lcz")
    found = archived_sizes(tensors)

    assert found.file == archived_bytes(tensors) == (tmp_path / "m.lcz").stat().st_size
    assert found.tensors == {tensor.name: tensor.bytes for tensor in inspect_archive(tmp_path / "m.lcz").tensors}
    assert found.tensors["scale"] == pytest.approx(3 * found.tensors["bias"])  # in one block
    assert found.tensors["tied"] == 0
