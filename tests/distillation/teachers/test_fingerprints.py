"""Fingerprints: equal for equal samples, different for different ones, the same in every version."""

from __future__ import annotations

import pytest
import torch

from lightning_compress.distillation.features import NetworkCall
from lightning_compress.distillation.teachers.fingerprints import fingerprints


def call(*tensors: torch.Tensor) -> NetworkCall:
    return NetworkCall(tensors, {}, {"": tensors[0]})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_fingerprints_tell_samples_apart(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randint(0, 2, (2000, 64), generator=generator).unique(dim=0).to(dtype)
    keys = fingerprints(call(samples))
    assert keys.dtype == torch.int64
    assert len(keys.unique()) == len(samples)
    assert torch.equal(fingerprints(call(samples.flip(0))), keys.flip(0))


def test_fingerprints_are_those_of_past_versions() -> None:
    expected = [-5667532215223703424, 6924037538794399296]  # by Python integers modulo 2 ** 64
    assert fingerprints(call(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))).tolist() == expected


def test_fingerprints_see_every_input_and_no_padding() -> None:
    ids, kinds = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 1, 1]])
    padded = torch.tensor([[5, 6, 7, 0, 0]])
    assert fingerprints(call(ids)) == fingerprints(call(padded))
    assert fingerprints(call(ids, kinds)) != fingerprints(call(kinds, ids))
    with pytest.raises(ValueError, match="need a tensor among the network's inputs"):
        fingerprints(NetworkCall((3,), {}, {}))
