import pytest
import torch

from lightning_compress.archive.forms.grid_search import grid_integers, grid_scales

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def integers(rows, columns, largest, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-largest, largest + 1, (rows, columns), generator=generator)


def scales(rows, dtype, seed=1):
    return (torch.rand(rows, generator=torch.Generator().manual_seed(seed)) / 50 + 1e-3).to(dtype)


def check(rows):
    found = grid_scales(rows)
    assert found is not None
    assert found.dtype == rows.dtype
    q = grid_integers(rows, found)
    assert torch.equal(q.to(rows.dtype) * found[:, None], rows)
    return found, q


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("largest", [1, 7, 127])
@pytest.mark.parametrize("rows", [1, 2, 40])
def test_a_grid_is_found(dtype, largest, rows):
    q, scale = integers(rows, 500, largest), scales(rows, dtype)

    _, found = check(q.to(dtype) * scale[:, None])

    assert found.abs().max() <= largest
    if dtype in (torch.float32, torch.float64):  # precise enough for the integers to be unique
        assert torch.equal(found, q)


def test_thousands_of_scales_are_each_found():
    _, found = check(integers(3000, 64, 7).float() * scales(3000, torch.float32)[:, None])

    assert found.abs().max() <= 7


def test_a_grid_without_the_integer_one_is_found():
    q = torch.tensor([[6, 10, -15, 0], [5, 7, 127, -11]])

    _, found = check(q * torch.tensor([[0.1], [0.37]]))

    assert torch.equal(found, q)


def test_a_row_of_zeros_has_scale_one():
    found, _ = check(torch.tensor([[0.0, -0.0], [0.5, 1.0], [0.0, 0.0]]))

    assert found.tolist() == [1.0, 0.5, 1.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.12345678, 1e-40, 1e30])
def test_one_weight_off_the_grid_is_noticed(bad):
    rows = integers(20, 500, 7).float() * 0.1
    rows[17, 3] = bad

    assert grid_scales(rows) is None
    assert grid_scales(rows[17:18]) is None


@pytest.mark.parametrize("dtype", FLOATS)
def test_products_below_the_normal_numbers_are_no_grid(dtype):
    tiny = torch.finfo(dtype).tiny / 4

    assert grid_scales(torch.tensor([[1.0, 2.0, 3.0]], dtype=dtype) * tiny) is None


def test_plain_weights_lie_on_no_grid():
    generator = torch.Generator().manual_seed(0)

    assert grid_scales(torch.randn(64, 256, generator=generator)) is None
    assert grid_scales(torch.randn(1, 50_000, generator=generator)) is None
