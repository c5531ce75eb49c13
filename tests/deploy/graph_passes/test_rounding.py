"""Rounding: codes of activations as int8 in place of uint8, with the same values."""

import numpy as np
import pytest
import torch

from lightning_compress.deploy.graph_passes.rounding import (
    dequantize_for_each,
    holds_codes,
    quantized_form,
    sign_codes,
    spell_out_round,
)
from tests.support.rounded import Function, after, names, rounded

X = torch.linspace(-20.0, 40.0, 1001)


@pytest.mark.parametrize("zero_point", [0, 1, 100, 128, 255])
def test_signed_codes_have_the_same_values(zero_point):
    form = (0.1, zero_point, 0, 255, torch.uint8)
    before, result = after(Function(lambda x: rounded(x, form)), [sign_codes], X)
    (quantize,) = [node for node in result.graph.nodes if quantized_form(node)]
    assert quantized_form(quantize) == (0.1, zero_point - 128, -128, 127, torch.int8)
    assert holds_codes(before.graph)
    assert sign_codes(result) == 0


def test_a_float_graph_holds_no_codes():
    before, _ = after(Function(lambda x: x * 2.0), [sign_codes], X)
    assert not holds_codes(before.graph)


def test_every_reader_has_its_own_dequantize():
    def forward(x):
        y = rounded(x)
        return y * 2.0 + y * y

    _, result = after(Function(forward), [dequantize_for_each], X)
    assert names(result) == ["Q", "D", "mul", "D", "mul", "add"]
    assert dequantize_for_each(result) == 0


def test_rounding_is_spelled_out_bit_by_bit():
    whole = torch.arange(-9.0, 10.0)
    x = torch.cat([whole, whole + 0.5, torch.linspace(-3.0, 3.0, 1001), torch.tensor([0.49999997, -1e-30, 3e9])])
    x = torch.cat([x, 2.0**22 + torch.tensor([0.5, 1.5]), 2.0**23 + torch.arange(3.0)])
    _, result = after(Function(torch.round), [spell_out_round], x)
    assert "round" not in names(result)
    np.testing.assert_array_equal(result(x).numpy(), np.rint(x.numpy()))
