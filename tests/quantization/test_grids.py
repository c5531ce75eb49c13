import pytest
import torch

from lightning_compress.quantization import scales
from lightning_compress.quantization.granularities import PerChannel, PerGroup, PerTensor
from lightning_compress.quantization.grids import AffineGrid, project_

SYMMETRIC = [scales.absmax, scales.mse, scales.power_of_two]


def weight(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("scale", [*SYMMETRIC, scales.minmax])
def test_values_are_bit_for_bit_those_of_the_native_operator(scale, bits):
    w = weight(8, 4, 3, 3)
    grid = scale(PerChannel().rows(w), bits)
    native = torch.fake_quantize_per_channel_affine(
        w, grid.scale.flatten(), grid.zero_point.flatten().int(), 0, grid.low, grid.high
    )
    assert torch.equal(grid.project(w).view(torch.int32), native.view(torch.int32))


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(16)])
@pytest.mark.parametrize("scale", [*SYMMETRIC, scales.minmax])
def test_a_projected_weight_gives_its_codes_back(scale, granularity):
    w = weight(8, 32)
    grid = scale(granularity.rows(w), 4)
    codes = grid.codes(w)
    assert torch.equal(grid.codes(grid.values(codes)), codes)
    assert torch.equal(grid.project(grid.values(codes)), grid.values(codes))
    assert grid.low <= codes.min()
    assert codes.max() <= grid.high


@pytest.mark.parametrize("scale", [*SYMMETRIC, scales.minmax])
def test_zeros_stay_positive_zeros(scale):
    w = weight(4, 16) + 3
    w[:, ::2], w[3] = -0.0, 0.0
    projected = scale(PerChannel().rows(w), 4).project(w)
    assert torch.equal(projected[:, ::2].view(torch.int32), torch.zeros(4, 8, dtype=torch.int32))
    assert projected.isfinite().all()


def test_groups_lie_within_an_output():
    w = weight(2, 8)
    w[0, :4] *= 100
    grid = scales.absmax(PerGroup(4).rows(w), 8)
    torch.testing.assert_close(grid.scale.flatten(), w.view(4, 4).abs().amax(1) / 127)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_mse_is_no_worse_than_a_fine_search(bits):
    rows = weight(16, 64)
    high = 2 ** (bits - 1) - 1
    absmax = rows.abs().amax(1, keepdim=True) / high

    def error(scale):
        return ((rows / scale).round().clamp(-high, high) * scale - rows).square().sum(1)

    searched = torch.stack([error(absmax * k / 1000) for k in range(100, 1001)]).amin(0)
    assert (error(scales.mse(rows, bits).scale) <= 1.02 * searched).all()


def test_power_of_two_covers_the_largest_weight_and_no_more():
    rows = weight(16, 64)
    scale = scales.power_of_two(rows, 8).scale
    assert torch.equal(scale.log2(), scale.log2().round())
    assert (127 * scale >= rows.abs().amax(1, keepdim=True)).all()
    assert (127 * scale / 2 < rows.abs().amax(1, keepdim=True)).all()


def test_binary_scale_minimizes_the_error():
    rows = weight(4, 64)
    grid = scales.mean(rows)
    best = (rows * rows.sign()).sum(1) / 64
    torch.testing.assert_close(grid.scale.flatten(), best)


def test_bad_groups_are_refused():
    with pytest.raises(ValueError, match="need size >= 1, got size=0"):
        PerGroup(0)
    with pytest.raises(ValueError, match=r"that 5 divides .* got 'fc.weight' with 64: add it to exclude"):
        PerGroup(5).check("fc.weight", torch.Size((8, 64)))


@pytest.mark.parametrize("strength", [1.0, 0.3])
@pytest.mark.parametrize("transposed", [False, True])
def test_small_weights_are_projected_together_as_each_by_itself(strength, transposed):
    generator = torch.Generator().manual_seed(1)
    weights = {f"{bits}.{i}": torch.randn(6, 8, generator=generator) for bits in (4, 8) for i in range(5)}
    weights["other"] = torch.randn(3, 8, generator=generator)
    grids = {}
    for name, w in weights.items():
        grid = scales.minmax(PerGroup(2).rows(w.t() if transposed else w), 4 if name.startswith("4") else 8)
        grids[name] = AffineGrid(grid.scale, grid.zero_point, grid.low, grid.high, transposed=transposed)
    expected = {
        name: w.lerp(grids[name].project(w), strength) if strength < 1 else grids[name].project(w)
        for name, w in weights.items()
    }
    project_(weights, grids, strength)
    assert all(torch.equal(weights[name], expected[name]) for name in weights)
