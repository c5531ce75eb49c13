"""Caches: a teacher's answers on disk, found again by the sample itself.

A row is found by a fingerprint of the sample's bits, so shuffling, subsets and another batch size change
nothing, the batch needs no index, and a sample that the teacher has not seen (a random augmentation, another
normalisation) is an error instead of a wrong answer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_compress.distillation.features import Call, match
from lightning_compress.distillation.teachers import Convert, Live

__all__ = ["Cache", "cache_outputs", "fingerprints"]

_VERSION = 1


def cache_outputs(
    teacher: nn.Module,
    batches: Iterable[Any],
    path: str | Path,
    layers: Sequence[str] = ("",),
    inputs: Callable[[Any], Any] = itemgetter(0),
) -> Cache:
    """Run a teacher once over the data and write what it answers.

    Args:
        teacher: any module.
        batches: the training data, preprocessed as for the student and without random augmentation.
        path: folder to write; it must not exist.
        layers: names of the teacher's layers; ``""`` is its output. Each needs one shape for all samples.
        inputs: batch -> the one input of the teacher.

    Raises:
        FileExistsError: ``path`` exists.
        ValueError: a layer is missing, shapes differ between batches, or there is no batch.
    """
    path, live = Path(path), Live(teacher)
    live.begin(nn.Module(), "", lambda module: module)
    layers = [name for pattern in layers for name in live.layers(pattern)]
    path.mkdir(parents=True)
    try:
        _write(live, (inputs(batch) for batch in batches), path, layers)
    except BaseException:
        shutil.rmtree(path)  # half a cache would pass for a whole one
        raise
    return Cache(path)


def _write(teacher: Live, batches: Iterable[Any], path: Path, layers: Sequence[str]) -> None:
    shapes: dict[str, list[int]] = {}
    keys: list[np.ndarray] = []
    files = [(path / f"{number}.bin").open("wb") for number in range(len(layers))]
    try:
        for batch in batches:
            call = Call((batch,), {}, {"": batch})
            answer = teacher.answer(call, layers)
            keys.append(fingerprints(call).numpy())
            for name, file in zip(layers, files, strict=True):
                shape = list(answer[name].shape[1:])
                if shapes.setdefault(name, shape) != shape:
                    raise ValueError(f"need one shape for all samples, got {shapes[name]} and {shape}: {name!r}")
                file.write(answer[name].float().cpu().numpy().tobytes())
    finally:
        for file in files:
            file.close()
    if not keys:
        raise ValueError("need at least one batch to cache, got none")
    np.save(path / "fingerprints.npy", np.concatenate(keys))
    manifest = {"version": _VERSION, "layers": [{"name": name, "shape": shapes[name]} for name in layers]}
    (path / "manifest.json").write_text(json.dumps(manifest, indent=2))


class Cache:
    """A teacher that reads its answers from the memory-mapped files that ``cache_outputs`` wrote.

    Args:
        path: the folder.

    Raises:
        FileNotFoundError: ``path`` holds no cache.
        ValueError: the cache is damaged or of another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "manifest.json").is_file():
            raise FileNotFoundError(f"need a folder written by cache_outputs, got {str(path)!r}")
        manifest = json.loads((self.path / "manifest.json").read_text())
        if manifest.get("version") != _VERSION:
            raise ValueError(f"need a cache of version {_VERSION}, got {manifest.get('version')}: write it anew")
        keys = np.load(self.path / "fingerprints.npy", allow_pickle=False)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._rows = {
            layer["name"]: self._map(number, (len(keys), *layer["shape"]))
            for number, layer in enumerate(manifest["layers"])
        }

    def __reduce__(self) -> tuple[type[Cache], tuple[Path]]:
        return Cache, (self.path,)  # a pickled memory map would be all of the file

    def begin(self, student: nn.Module, network: str, convert: Convert) -> None:
        pass

    def follow(self, student: nn.Module, step: int) -> None:
        pass

    def layers(self, pattern: str) -> list[str]:
        """The cached layers that match a shell pattern."""
        return match(list(self._rows), pattern, "cached teacher")

    def answer(self, call: Call, layers: Sequence[str]) -> Mapping[str, Tensor]:
        """The rows of the samples in ``call``.

        Raises:
            ValueError: a sample is not in the cache.
        """
        rows = self._find(fingerprints(call).numpy())
        device = next(iter(call.outputs.values())).device
        return {name: torch.from_numpy(self._rows[name][rows]).to(device) for name in layers}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def _find(self, keys: np.ndarray) -> np.ndarray:
        places = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        unknown = int((self._keys[places] != keys).sum())
        if unknown:
            raise ValueError(
                f"need inputs that the cached teacher has seen, got {unknown} of {len(keys)} unknown: a "
                "random augmentation, or another preprocessing or precision than when the cache was made; "
                "use the teacher itself, or write the cache anew with what the student sees"
            )
        rows: np.ndarray = self._order[places]
        return rows

    def _map(self, number: int, shape: tuple[int, ...]) -> np.ndarray:
        file = self.path / f"{number}.bin"
        expected = 4 * int(np.prod(shape))
        found = file.stat().st_size if file.is_file() else 0
        if found != expected:
            raise ValueError(f"need {expected} bytes in {file.name} of the cache, got {found}: write it anew")
        rows: np.ndarray = np.memmap(file, np.float32, "r", shape=shape)
        return rows


def fingerprints(call: Call) -> Tensor:
    """One 64-bit number for each sample: the bits of its inputs, each times an odd number of its position.

    Zeros add nothing, so padding at the end does not change it.

    Args:
        call: inputs whose tensors share the first dimension, the batch.

    Returns:
        int64 of shape ``[batch]``, on the CPU.
    """
    total: Tensor | int = 0
    for number, leaf in enumerate(leaf for leaf in tree_leaves((call.args, call.kwargs)) if isinstance(leaf, Tensor)):
        rows = leaf.detach().reshape(len(leaf), -1).contiguous().view(_WORDS[leaf.element_size()])
        if rows.dtype == torch.int32:
            # Round numbers end in zero bits, and what a product has of those is lost at its other end.
            rows = rows ^ ((rows >> 16) & 0xFFFF)
        total = total + (rows * _odd_numbers(rows.shape[1], number, leaf.device)).sum(1)
    if isinstance(total, int):
        raise ValueError("need a tensor among the network's inputs to find the sample by, got none")
    return total.cpu()


_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int32}


@lru_cache(maxsize=8)
def _odd_numbers(count: int, seed: int, device: torch.device) -> Tensor:
    """SplitMix64 by hand: a cache outlives the random generators of a torch version."""
    x = torch.arange(1, count + 1, dtype=torch.int64) * -7046029254386353131 + seed * 6364136223846793005
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * -4658895280553007687
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * -7723592293110705685
    return (x ^ (x >> 31) | 1).to(device)
