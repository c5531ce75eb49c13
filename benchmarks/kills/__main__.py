"""Kills runs and exports at random instants: ``python -m benchmarks.kills [kills] [exports]``.

First table: runs of every case of the contract, of searches for a metric, and of Lightning alone, are killed and
resumed; the resumed model must be the uninterrupted one, bit for bit. Second table: exports and reports are killed
while they replace earlier files; every path must hold a whole file or folder. By default 415 runs and 100 exports of
every kind are killed.
"""

from __future__ import annotations

import sys
from random import Random
from typing import Any

import torch

from benchmarks.kills import exports, runs
from benchmarks.tables import quiet, show
from lightning_compress import CompressionBudget
from tests.support.cases import CASES, Case
from tests.support.promises import nothing

ALONE = "Lightning alone"
SEED = 0
SEARCHES = {  # no part of the contract: nothing else may write weights beside them, and each needs a validation
    f"a metric of {metric}": Case(
        lambda metric=metric: [CompressionBudget(max_drop=0.02, reference=metric, patience=1)], nothing
    )
    for metric in (0.2, 0.5)  # sizes hold from the first epoch on, or late
}


def main(kills: int = 415, exported: int = 100) -> None:
    """Print two tables. The kills are spread over the cases; Lightning alone is killed as often as one of them."""
    quiet()
    torch.set_num_threads(1)  # threads do not survive a fork
    cases = CASES | SEARCHES
    share, rest = divmod(kills, len(cases))
    plain = _noted(ALONE, runs.killed(Case(list, nothing), share, Random(SEED)))
    tallies = {
        name: _noted(name, runs.killed(case, share + (number < rest), Random(SEED + number)))
        for number, (name, case) in enumerate(cases.items())
    }
    _show("Killed runs", {ALONE: plain, **tallies, "all cases": sum(tallies.values(), runs.Tally())})
    _show(
        "Killed exports", {k.title: _noted(k.title, exports.killed(k, exported, Random(SEED))) for k in exports.KINDS}
    )


def _noted(name: str, tally: Any) -> Any:
    print(name, *tally.cells().values(), file=sys.stderr)
    return tally


def _show(title: str, tallies: dict[str, Any]) -> None:
    header = next(iter(tallies.values())).cells().keys()
    show(title, ["", *header], [[name, *map(str, tally.cells().values())] for name, tally in tallies.items()])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
