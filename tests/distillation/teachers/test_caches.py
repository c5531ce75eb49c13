"""Cached teachers: the answers of the live one, found by the sample; errors where they cannot be."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lightning_compress.distillation import OUTPUT, Cache, DistillationModule, Term, cache_outputs, losses
from lightning_compress.distillation.features import NetworkCall
from tests.support.students import Student, data, loader, teacher, trainer

LOSSES = (
    losses.SoftTargets(),
    Term(losses.attention_transfer, student_layers="net.norm", teacher_layers="norm"),
)


def call(*tensors: torch.Tensor) -> NetworkCall:
    return NetworkCall(tensors, {}, {"": tensors[0]})


def train(master: nn.Module | Cache) -> Student:
    torch.manual_seed(0)
    student = Student()
    generator = torch.Generator().manual_seed(5)
    batches = torch.utils.data.DataLoader(data(), batch_size=4, shuffle=True, generator=generator)
    trainer(max_epochs=2).fit(DistillationModule(student, master, losses=LOSSES), batches, loader())
    return student


def test_training_on_the_cache_is_training_on_the_teacher(tmp_path: Path) -> None:
    master = teacher()
    cache = cache_outputs(master, loader(), tmp_path / "cache", layers=[OUTPUT, "norm"])
    for live, cached in zip(train(master).parameters(), train(cache).parameters(), strict=True):
        torch.testing.assert_close(live, cached, rtol=1e-4, atol=1e-6)


def test_rows_are_found_by_their_sample(tmp_path: Path) -> None:
    master, images = teacher().eval(), data().tensors[0]
    cache = cache_outputs(master, loader(), tmp_path / "cache")
    order = torch.tensor([30, 2, 2, 17])
    torch.testing.assert_close(cache.answer(call(images[order]), [""])[""], master(images[order]))
    again = pickle.loads(pickle.dumps(cache))
    assert torch.equal(again.answer(call(images), [""])[""], cache.answer(call(images), [""])[""])


def test_rows_are_memory_mapped_and_float32(tmp_path: Path) -> None:
    cache = cache_outputs(teacher(), loader(), tmp_path / "cache")
    assert isinstance(cache._rows[""], np.memmap)
    assert (tmp_path / "cache" / "0.bin").stat().st_size == 32 * 3 * 4


def test_an_unknown_sample_is_refused(tmp_path: Path) -> None:
    cache = cache_outputs(teacher(), loader(), tmp_path / "cache")
    flipped = data().tensors[0][:4].clone()
    flipped[1] = flipped[1].flip(-1)
    with pytest.raises(ValueError, match="cached teacher has seen, got 1 of 4 unknown: a random augmentation"):
        cache.answer(call(flipped), [""])


def test_a_layer_that_is_not_cached_is_refused(tmp_path: Path) -> None:
    cache = cache_outputs(teacher(), loader(), tmp_path / "cache", layers=["head"])
    with pytest.raises(ValueError, match="layer of the cached teacher that matches 'norm', got none; there are: head"):
        cache.layers("norm")


def test_damage_is_refused(tmp_path: Path) -> None:
    cache_outputs(teacher(), loader(), tmp_path / "cache")
    rows, manifest = tmp_path / "cache" / "0.bin", tmp_path / "cache" / "manifest.json"
    rows.write_bytes(rows.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"need 384 bytes in 0\.bin of the cache, got 383"):
        Cache(tmp_path / "cache")
    manifest.write_text(json.dumps({"version": 99}))
    with pytest.raises(ValueError, match="need a cache of version 1, got 99"):
        Cache(tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match="need a folder written by cache_outputs"):
        Cache(tmp_path)


def test_half_a_cache_is_removed(tmp_path: Path) -> None:
    def batches() -> object:
        yield torch.zeros(2, 1, 8, 8), None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_outputs(teacher(), batches(), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    with pytest.raises(ValueError, match="at least one batch to cache"):
        cache_outputs(teacher(), [], tmp_path / "cache")


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    batches = [(torch.zeros(2, 3, length),) for length in (4, 5)]
    with pytest.raises(ValueError, match=r"need one shape for all samples, got \[3, 4\] and \[3, 5\]: ''"):
        cache_outputs(nn.Identity(), batches, tmp_path / "cache")


def test_a_teacher_with_nan_is_not_cached(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="answers with finite numbers"):
        cache_outputs(nn.Identity(), [(torch.full((2, 3), torch.nan),)], tmp_path / "cache")


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="need layers as a sequence of patterns, got 'norm'"):
        cache_outputs(teacher(), loader(), tmp_path / "cache", layers="norm")
    with pytest.raises(TypeError, match="need teacher as a torch.nn.Module, got str"):
        cache_outputs("resnet", loader(), tmp_path / "cache")
    with pytest.raises(TypeError, match="need path as text or a path, got 3$"):
        cache_outputs(teacher(), loader(), 3)
    with pytest.raises(TypeError, match=r"need inputs\(batch\) as a function, got None: leave inputs out"):
        cache_outputs(teacher(), loader(), tmp_path / "cache", inputs=None)
    with pytest.raises(TypeError, match="need batches as a loader or a list of batches, got 3$"):
        cache_outputs(teacher(), 3, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
