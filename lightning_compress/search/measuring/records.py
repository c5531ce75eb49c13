"""Records: a file of JSON lines that holds the finished trials of a sensitivity, so that a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_compress.drafts import draft_of

__all__ = ["TrialRecord", "fingerprint"]


class TrialRecord:
    """The lines of finished trials, in a file or in memory alone.

    The first line says which run the trials belong to. A last line that a kill has cut off is dropped.

    Args:
        path: the file; None to keep the trials in memory.
        run: text that identifies the run.

    Raises:
        ValueError: the file is of another run, or holds other lines.
    """

    def __init__(self, path: Path | None, run: str) -> None:
        self._path = path
        self.trials: list[dict[str, Any]] = []
        """Finished trials, in the order in which they were added."""
        if path is None:
            return
        lines = _whole_lines(path)
        head, *trials = lines or [{"run": run}]
        if head != {"run": run}:
            raise ValueError(
                f"need a file of the same run to go on, got {path.name} of another: module, data, methods, loss and "
                "metric must be the same; pass another path, or delete the file"
            )
        self.trials = trials
        # Rewritten, since a line without its end may stand there.
        with draft_of(path) as draft:
            draft.write_text("".join(f"{json.dumps(line)}\n" for line in (head, *trials)), encoding="utf-8")

    def add(self, trial: Mapping[str, Any]) -> None:
        """Add a finished trial; it is in the file when this returns."""
        self.trials.append(dict(trial))
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(trial)}\n")


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1].splitlines()
    try:
        return [json.loads(line) for line in whole]
    except ValueError as error:
        raise ValueError(f"need a file of JSON lines to go on, got {path.name}: {error}") from error


def fingerprint(texts: Iterable[str], tensors: Iterable[Tensor]) -> str:
    """A digest of texts and of the bits of tensors.

    >>> fingerprint(["a"], [torch.ones(2)]) == fingerprint(["a"], [torch.ones(2)])
    True
    >>> fingerprint(["a"], [torch.ones(2)]) == fingerprint(["a"], [torch.zeros(2)])
    False
    """
    digest = blake2b(digest_size=16)
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode())
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
