"""One Markdown page, and a short table for the README, from the recorded figures."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.environments import PEERS
from benchmarks.peers.figures import PRUNING, QUANTIZATION, Line, Record, ahead, lines_of, table

__all__ = ["between", "machine", "page", "short_table"]

_JOBS = {"train": "a training run", "resume": "the resumed run", "time": "the cost of a step"}
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
_INTRODUCTION = """# Other libraries

The same data, network, order of images, optimizer, learning rate and number of steps for every library. Versions are
pinned, and a library that needs other packages than this one has an environment of its own. All figures are taken from
outside, from the files that a library leaves behind. Everything runs on one thread. This page is written by

```bash
python -m benchmarks.peers --publish
```

which needs Fashion-MNIST and `zstd`, and goes on where it was ended. The figures of single runs are in
[peers.jsonl](peers.jsonl), and the program of each library is a short file in
[benchmarks/peers](https://github.com/lightning-compress/lightning-compress/tree/main/benchmarks/peers).
"""
_PRUNING = """## Unstructured pruning

LeNet-300-100 on Fashion-MNIST, 60,000 images, 10 epochs from random weights, dense or pruned in the same number of
steps; SGD, OneCycle up to 0.1. Accuracy in % on the 10,000 test images after the last step: {seeds}.
"""
_PRUNING_NOTES = """
*Zeros*: counted in the state dict, among all weights, at 95 %. *zstd*, *.lcz*: bytes of the state dict at 95 % under
`zstd -19`, and as an [archive](archive.md) of this package, which takes the state dict of any library. A mask that
multiplies leaves half of the zeros negative (108,874 of 215,954 in the first layer of `torch.nn.utils.prune` at 90 %),
and their signs take bytes. *Step*: CPU time of a training step, divided by that of a step without the library in the
same loop; short runs in turns, A B A B.
*After resume*: zeros at the end of a run at 90 % that went on with the checkpoint of step 3,752 of 4,690, in a new
model that was prepared as the first. *Lines*: of user code beyond the training loop. `ModelPruning` prunes at the
ends of epochs and got 35 of them, in the same number of steps.
"""
_QUANTIZATION = """## Quantization-aware training

ResNet-8 of width 16 on the first 20,000 images: three epochs in float, then one more epoch with 8-bit weights and
activations, from the same weights, with a learning rate of up to 0.02; {seeds}. Accuracy is that of the exported file
in the runtime, on the 10,000 test images. *Latency*: CPU time of the file, divided by that of the float file in the
same runtime, one thread, in turns.
"""


def page(records: Sequence[Record], date: str) -> str:
    """The whole page."""
    pruning, quantization = ([one for one in records if one["row"] == row] for row in ("pruning", "quantization"))
    parts = [_INTRODUCTION, _environment(records, date)]
    if pruning:
        lines = lines_of(pruning)
        parts += [_PRUNING.format(seeds=_seeds(pruning)), table(PRUNING, lines), _PRUNING_NOTES, ahead(PRUNING, lines)]
        parts += _failed(lines)
    if quantization:
        lines = lines_of(quantization)
        parts += [_QUANTIZATION.format(seeds=_seeds(quantization)), table(QUANTIZATION, lines)]
        parts += [ahead(QUANTIZATION, lines), *_failed(lines)]
    return "\n".join(part.strip("\n") + "\n" for part in [*parts, *_unmeasured(records)])


def short_table(records: Sequence[Record]) -> str:
    """The table of the README: the lines of pruning that have figures, and the number of seeds."""
    pruning = [one for one in records if one["row"] == "pruning"]
    columns = [*PRUNING[:3], *(column for column in PRUNING if column.name in ("step", "after resume", "lines"))]
    return f"Accuracy in %, {_seeds(pruning)}:\n\n{table(columns, lines_of(pruning))}"


def between(text: str, name: str, inner: str) -> str:
    """``text`` with the part between the comments ``<!-- name -->`` and ``<!-- /name -->`` replaced."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"need one {begin} and one {end}, got {text.count(begin)} and {text.count(end)}")
    head, rest = text.split(begin)
    return f"{head}{begin}\n\n{inner.strip()}\n\n{end}{rest.split(end)[1]}"


def machine() -> Record:
    """The processor of this machine, with the flags that integer kernels depend on."""
    path = Path("/proc/cpuinfo")
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line) if path.is_file() else {}
    entries = {name.strip(): value.strip() for name, value in lines.items()}
    flags = [flag for flag in _FLAGS if flag in entries.get("flags", "").split()]
    return {"cpu": entries.get("model name", platform.processor()), "flags": flags, "python": platform.python_version()}


def _unmeasured(records: Sequence[Record]) -> list[str]:
    measured = {(one["row"], one["peer"]) for one in records}
    names = [f"{peer.title} ({peer.row})" for peer in PEERS if (peer.row, peer.name) not in measured]
    timed = any("step_ratio" in one for one in records)
    names += [] if timed else ["the cost of a step"]
    return [f"Not measured yet: {', '.join(names)}.\n"] if names else []


def _failed(lines: Sequence[Line]) -> list[str]:
    found = [f"- {line.title}: {line.error}" for line in lines if line.error]
    for line in lines:
        errors = [one for one in line.records if "error" in one and not line.error]
        found += [f"- {line.title}, {_JOBS[one['kind']]}: {one['error']}" for one in errors]
    return ["Without figures:\n", "\n".join(found)] if found else []


def _environment(records: Sequence[Record], date: str) -> str:
    versions = {f"{name} {version}" for one in records for name, version in one.get("versions", {}).items()}
    places = {(one["cpu"], " ".join(one["flags"]), one["python"]) for one in records if "cpu" in one}
    machines = "; ".join(f"{cpu} ({flags or 'no flags'}), Python {python}" for cpu, flags, python in sorted(places))
    return f"{date}. {machines}. {', '.join(sorted(versions))}.\n"


def _seeds(records: Sequence[Record]) -> str:
    numbers = {one["seed"] for one in records if one["kind"] == "train" and "error" not in one}
    if len(numbers) == 1:
        return "one seed, so that small differences mean nothing"
    return f"mean of {len(numbers)} seeds, and in brackets the distance from the lowest to the highest"
