"""Pools: means over space in the form that kernels take."""

import pytest
import torch
import torch.nn.functional as F

from lightning_compress.deploy.graph_passes.pools import average_without_padding, keep_space
from tests.support.rounded import Function, after, names

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
