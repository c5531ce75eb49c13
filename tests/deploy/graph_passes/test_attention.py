"""Attention: products without a dimension for heads get one, with the same outputs."""

import math

import pytest
import torch
from torch import nn

from lightning_compress.deploy import export
from lightning_compress.deploy.graph_passes import rewritten
from lightning_compress.deploy.graph_passes.attention import give_heads
from lightning_compress.deploy.runtimes import OnnxRuntime
from tests.support.rounded import Function, names

attend = nn.functional.scaled_dot_product_attention
Q, K, V = (torch.randn(4, size, 8, generator=torch.Generator().manual_seed(size)) for size in (5, 6, 6))
MASK = torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(1))


class Attention(nn.Module):
    """A head of its own making, as users write it."""

    def __init__(self, **options):
        super().__init__()
        self.projections, self.options = nn.ModuleList(nn.Linear(8, 8) for _ in range(3)), options

    def forward(self, x):
        return attend(*(projection(x) for projection in self.projections), **self.options).mean(1)


def widened(function, *inputs):
    """Names of the operations after the pass, whose outputs are those of before."""
    result = rewritten(torch.export.export(Function(function), inputs), give_heads)
    torch.testing.assert_close(result(*inputs), function(*inputs))
    return names(result)


@pytest.mark.parametrize(
    ("inputs", "options", "added"),
    [
        ((Q, K, V), {}, 4),
        ((Q, K, V), {"is_causal": True}, 4),
        ((Q, K, V), {"scale": 0.3}, 4),
        ((Q[0], K[0], V[0]), {}, 8),
        ((Q[None], K[None], V[None]), {}, 0),
    ],
)
def test_the_outputs_stay(inputs, options, added):
    found = widened(lambda q, k, v: attend(q, k, v, **options), *inputs)
    assert found.count("unsqueeze") + found.count("squeeze") == added


@pytest.mark.parametrize("mask", [MASK, MASK[0]])
def test_masks(mask):
    found = widened(lambda q, k, v, mask: attend(q, k, v, attn_mask=mask), Q, K, V, mask)
    assert found.count("unsqueeze") == (4 if mask.ndim == 3 else 3)


def test_onnx_runtime_computes_it(tmp_path):
    module = Attention(is_causal=True).eval()
    x = torch.randn(4, 5, 8)
    path = export(module, tmp_path / "m.onnx", x)
    q, k, v = (projection(x[:3]) for projection in module.projections)
    scores = (q @ k.mT / math.sqrt(8)).masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
    expected = (scores.softmax(-1) @ v).mean(1)
    torch.testing.assert_close(OnnxRuntime().load(path)([x[:3]])[0], expected.detach(), atol=1e-5, rtol=1e-4)
