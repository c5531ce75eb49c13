"""Pools: means over space in the form that kernels take."""

import pytest
import torch
import torch.nn.functional as F

from lightning_compress.deploy.graph_passes.pools import average_without_padding, convolve_means, keep_space
from tests.support.rounded import Function, after, names, rounded

UNEVEN = (0.0373, 30, 0, 255, torch.uint8)  # no mean of multiples of 0.1 lies between two of its values
IMAGES = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("axes", [(2, 3), (-1, -2)])
def test_means_over_space_keep_it(axes):
    _, result = after(Function(lambda x: x.mean(axes) * 2.0), [keep_space], IMAGES)
    assert names(result) == ["mean", "view", "mul"]
    (mean,) = [node for node in result.graph.nodes if str(node.target) == "aten.mean.dim"]
    assert mean.args[1:] == ([2, 3], True)


@pytest.mark.parametrize(
    "mean", [lambda x: x.mean((1, 2)), lambda x: x.mean(3), lambda x: x.mean((2, 3), keepdim=True), lambda x: x.mean()]
)
def test_other_means_stay(mean):
    before, result = after(Function(mean), [keep_space], IMAGES)
    assert names(before) == names(result)


@pytest.mark.parametrize(("padding", "counted"), [(0, False), (1, True)])
def test_padding_counts_only_where_there_is_some(padding, counted):
    _, result = after(Function(lambda x: F.avg_pool2d(x, 2, 2, padding)), [average_without_padding], IMAGES)
    (pool,) = [node for node in result.graph.nodes if str(node.target) == "aten.avg_pool2d.default"]
    assert dict(enumerate(pool.args)).get(5, True) is counted


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: x.mean((2, 3), keepdim=True),
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.avg_pool2d(x, (2, 3), 1, 1),
    ],
)
def test_means_of_rounded_values_become_convolutions(pool):
    _, result = after(Function(lambda x: rounded(pool(rounded(x)), UNEVEN)), [convolve_means], IMAGES)
    assert names(result) == ["Q", "D", "W", "conv2d", "Q", "D"]
    (convolution,) = [node for node in result.graph.nodes if str(node.target) == "aten.conv2d.default"]
    assert convolution.args[6] == 4  # each channel alone


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: x.mean((2, 3), keepdim=True),  # not rounded
        lambda x: rounded(rounded(x).mean((1, 2), keepdim=True)),
        lambda x: rounded(F.avg_pool2d(rounded(x), 2, ceil_mode=True)),
        lambda x: rounded(F.avg_pool2d(rounded(x), 2, 1, 1, count_include_pad=False)),
        lambda x: rounded(F.avg_pool2d(rounded(x), 2, divisor_override=3)),
        lambda x: rounded(F.interpolate(rounded(x), scale_factor=2).mean((2, 3), keepdim=True)),  # 144 values
    ],
)
def test_other_pools_stay(pool):
    before, result = after(Function(pool), [convolve_means], IMAGES)
    assert names(before) == names(result)
