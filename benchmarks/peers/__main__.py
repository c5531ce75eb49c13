"""The command: ``python -m benchmarks.peers [peer ...] [--rows ...] [--seeds N] [--quick] [--publish]``."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.environments import PEERS, Peer, PeerError
from benchmarks.peers.judge import judge_files, judge_state
from benchmarks.peers.page import between, machine, page, short_table
from benchmarks.peers.recipe import RECIPES, ROOT, data_of, quick
from benchmarks.peers.worker import Job, work
from benchmarks.tables import quiet

__all__ = ["main"]

CACHE = ROOT / "build" / "peers"
LEVELS = (0.9, 0.95, 0.98)
ROWS = ("pruning", "quantization")


def main(arguments: Sequence[str] | None = None) -> Path:
    """Measure what is asked for and not yet recorded; the page that was written."""
    options = _options(arguments)
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    results: Path = options.folder / "peers.jsonl"
    chosen = [peer for peer in PEERS if peer.row in options.rows and _asked(peer, options)]
    levels = LEVELS[:1] if options.quick else LEVELS
    for peer, jobs in _batches(chosen, options.seeds, levels):
        recorded = _read(results)
        known = set() if options.again else {_key(one) for one in recorded}
        if all(_key({**job, "peer": peer.name}) in known for job in jobs):
            continue
        print(f"{peer.row}, {peer.name}, seed {jobs[0]['seed']}", flush=True)
        found = _done(peer, jobs, options)
        replaced = {_key(one) for one in found}
        lines = [one for one in recorded if _key(one) not in replaced] + found
        results.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return _write(results, options)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    names = sorted({peer.name for peer in PEERS})
    parser.add_argument("peers", nargs="*", metavar="peer", help=f"out of {', '.join(names)}; all by default")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=5, help="of the runs that are timed")
    parser.add_argument("--quick", action="store_true", help="few steps on random images, in this environment")
    parser.add_argument("--again", action="store_true", help="measure what is recorded already")
    parser.add_argument("--publish", action="store_true", help="write docs/peers.md and the table of README.md")
    parser.add_argument("--folder", type=Path, help="of peers.jsonl and peers.md; build/peers by default")
    options = parser.parse_args(arguments)
    if unknown := set(options.peers) - set(names):
        parser.error(f"need peers out of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    if options.quick and options.publish:
        parser.error("need figures of whole runs to publish, got --quick")
    options.folder = options.folder or (ROOT / "docs" if options.publish else CACHE)
    return options


def _asked(peer: Peer, options: argparse.Namespace) -> bool:
    here = not peer.environment.packages
    return (here or not options.quick) and (not options.peers or peer.name in options.peers or peer.name == "dense")


def _batches(peers: Sequence[Peer], seeds: int, levels: Sequence[float]) -> Iterator[tuple[Peer, list[Job]]]:
    """Jobs of one process that are recorded together: the first seed of all peers, times, then the other seeds."""
    for seed in range(seeds):
        for peer in peers:
            job = {"kind": "train", "row": peer.row, "seed": seed}
            if peer.row == "pruning":
                jobs = [{**job, "sparsity": level} for level in ((0.0,) if peer.name == "dense" else levels)]
            else:
                jobs = [job]
            if seed == 0 and peer.row == "pruning" and peer.name != "dense":
                jobs.append({**jobs[0], "kind": "resume"})
            yield peer, jobs
        if seed == 0:
            yield from ((peer, [_timed(peer, levels[0])]) for peer in peers if peer.name != "dense")


def _timed(peer: Peer, level: float) -> Job:
    job = {"kind": "time", "row": peer.row, "seed": 0}
    return {**job, "sparsity": level} if peer.row == "pruning" else job


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in ("row", "peer", "kind", "seed", "sparsity"))


def _done(peer: Peer, jobs: Sequence[Job], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The records of jobs; all have the same error if the peer cannot be installed, or its process ends without any."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            records = _worked(peer, [_prepared(job, Path(folder), options) for job in jobs], Path(folder), options)
            for one in records:
                if one["kind"] == "train" and "error" not in one:
                    one |= _judged(peer, one, options)
            versions = {} if options.quick else peer.environment.versions(CACHE)
        except PeerError as error:
            records, versions = [{**job, "error": str(error)} for job in jobs], {}
    kept = ({name: value for name, value in one.items() if name not in _INNER} for one in records)
    return [{**one, "peer": peer.name, "versions": versions, **machine()} for one in kept]


def _prepared(job: Job, folder: Path, options: argparse.Namespace) -> Job:
    """The job with its folder, which a resumed run shares with the run that it resumes."""
    own = folder / str(job.get("sparsity", "files"))
    own.mkdir(exist_ok=True)
    prepared = {**job, "folder": str(own), "quick": options.quick, "turns": 1 if options.quick else options.turns}
    return prepared if job["row"] == "pruning" else {**prepared, "start": str(_start(job["seed"], options))}


_INNER = {"folder", "start", "quick", "turns"}
"""Entries of a job that a record leaves out."""


def _worked(peer: Peer, jobs: Sequence[Job], folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    results = folder / "done.jsonl"
    if options.quick:
        work(peer.row, peer.name, jobs, results)
        return _read(results)
    command = [peer.environment.python(CACHE), "-m", "benchmarks.peers.worker", peer.row, peer.name]
    # Packages are compiled when they are first imported, unless a variable forbids it.
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    environment = {**os.environ, **own}
    command += [json.dumps(jobs), str(results)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    records = _read(results)
    if any("error" in one for one in records) or len(records) < len(jobs):
        sys.stderr.write(done.stderr[-4000:])
    if not records:
        raise PeerError(f"the process ended with {done.returncode}: {(done.stderr.splitlines() or ['no output'])[-1]}")
    return records


def _start(seed: int, options: argparse.Namespace) -> Path:
    """The dense checkpoint of a seed; the float file after one more epoch lies beside it."""
    folder: Path = (options.folder if options.quick else CACHE) / "starts" / str(seed)
    if not (folder / "model.onnx").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        dense = next(peer for peer in PEERS if (peer.row, peer.name) == ("quantization", "dense"))
        job = {"row": dense.row, "seed": seed, "folder": str(folder), "quick": options.quick}
        start = folder / "start.pt"
        _worked(dense, [{**job, "kind": "start"}, {**job, "kind": "train", "start": str(start)}], folder, options)
    return folder / "start.pt"


def _judged(peer: Peer, record: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    recipe = quick(RECIPES[peer.row]) if options.quick else RECIPES[peer.row]
    folder, data = Path(record["folder"]), data_of(recipe)
    if peer.row == "pruning":
        return judge_state(folder, recipe, data)
    return judge_files(folder, _start(record["seed"], options).parent, data)


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _write(results: Path, options: argparse.Namespace) -> Path:
    records, today = _read(results), f"{datetime.date.today():%-d %B %Y}"
    text, path = page(records, today), results.with_name("peers.md")
    path.write_text(text)
    if options.publish:
        readme = ROOT / "README.md"
        readme.write_text(between(readme.read_text(), "peers", short_table(records)))
    print(text)
    return path


if __name__ == "__main__":
    quiet()
    main()
