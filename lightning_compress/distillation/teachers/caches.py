"""Caches: a teacher's outputs on disk, found by the sample itself.

A fingerprint of the sample's bits finds its row. So shuffling, subsets and another batch size change nothing, and the
batch needs no index. A sample that the teacher has not seen (a random augmentation, another normalization) is an error
instead of a wrong answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_compress.arguments import check_function, check_module, check_path, check_patterns, shown
from lightning_compress.distillation.features import OUTPUT, NetworkCall, match
from lightning_compress.distillation.teachers.fingerprints import fingerprints
from lightning_compress.distillation.teachers.modules import Live
from lightning_compress.distillation.teachers.protocols import Convert
from lightning_compress.drafts import draft_of

__all__ = ["Cache", "cache_outputs"]

_VERSION = 1


def cache_outputs(
    teacher: nn.Module,
    batches: Iterable[Any],
    path: str | Path,
    *,
    layers: Sequence[str] = (OUTPUT,),
    inputs: Callable[[Any], Any] = itemgetter(0),
) -> Cache:
    """Run a teacher once over the data and write its outputs.

    Args:
        teacher: any module.
        batches: the training data, preprocessed as for the student and without random augmentation.
        path: folder to write; it must not exist.
        layers: shell patterns for the teacher's layers; ``OUTPUT`` is its output. Each layer needs one shape for all
            samples.
        inputs: batch -> the one input of the teacher.

    Returns:
        The cache, to use as a teacher; ``Cache(path)`` opens it again.

    Raises:
        FileExistsError: ``path`` exists.
        TypeError: ``layers`` is one string, or another argument is of another kind.
        ValueError: a layer is missing, shapes differ between batches, or there is no batch.
    """
    check_module(teacher=teacher)
    check_path(path=path)
    check_patterns(layers=layers)
    check_function("batch", inputs=inputs)
    if not (hasattr(batches, "__iter__") or hasattr(batches, "__getitem__")):
        raise TypeError(f"need batches as a loader or a list of batches, got {shown(batches)}")
    path, live = Path(path), Live(teacher)
    live.begin(nn.Module(), "", lambda module: module)
    layers = [name for pattern in layers for name in live.layers(pattern)]
    if path.exists():
        raise FileExistsError(f"need path as a folder that does not exist yet, got {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft_of(path) as draft:
        draft.mkdir()
        _write(live, (inputs(batch) for batch in batches), draft, layers)
    return Cache(path)


def _write(teacher: Live, batches: Iterable[Any], path: Path, layers: Sequence[str]) -> None:
    shapes: dict[str, list[int]] = {}
    keys: list[np.ndarray] = []
    files = [(path / f"{number}.bin").open("wb") for number in range(len(layers))]
    try:
        for batch in batches:
            call = NetworkCall((batch,), {}, {OUTPUT: batch})
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
    """A teacher that reads its outputs from the memory-mapped files that ``cache_outputs`` wrote.

    Args:
        path: the folder.

    Raises:
        FileNotFoundError: ``path`` holds no cache.
        ValueError: the cache is damaged or of another version.
    """

    def __init__(self, path: str | Path) -> None:
        check_path(path=path)
        self.path = Path(path)
        if not (self.path / "manifest.json").is_file():
            raise FileNotFoundError(f"need a folder written by cache_outputs, got {str(path)!r}")
        manifest = json.loads((self.path / "manifest.json").read_text())
        if manifest.get("version") != _VERSION:
            raise ValueError(f"need a cache of version {_VERSION}, got {manifest.get('version')!r}: write it again")
        keys = np.load(self.path / "fingerprints.npy", allow_pickle=False)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._rows = {
            layer["name"]: self._map(number, (len(keys), *layer["shape"]))
            for number, layer in enumerate(manifest["layers"])
        }

    def __reduce__(self) -> tuple[type[Cache], tuple[Path]]:
        return Cache, (self.path,)  # a pickled memory map would hold the whole file

    def __repr__(self) -> str:
        return f"Cache({str(self.path)!r})"

    def begin(self, student: nn.Module, network: str, convert: Convert) -> None:
        pass

    def follow(self, student: nn.Module, step: int) -> None:
        pass

    def layers(self, pattern: str) -> list[str]:
        """The cached layers that match a shell pattern."""
        return match(list(self._rows), pattern, "cached teacher")

    def answer(self, call: NetworkCall, layers: Sequence[str]) -> Mapping[str, Tensor]:
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
                "random augmentation, or another preprocessing or precision than when the cache was written; "
                "use the teacher itself, or write the cache again from the student's inputs"
            )
        rows: np.ndarray = self._order[places]
        return rows

    def _map(self, number: int, shape: tuple[int, ...]) -> np.ndarray:
        file = self.path / f"{number}.bin"
        expected = 4 * int(np.prod(shape))
        found = file.stat().st_size if file.is_file() else 0
        if found != expected:
            raise ValueError(f"need {expected} bytes in {file.name} of the cache, got {found}: write it again")
        rows: np.ndarray = np.memmap(file, np.float32, "r", shape=shape)
        return rows
