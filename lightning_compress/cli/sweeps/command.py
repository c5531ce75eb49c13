"""The command ``sweep``: many runs of one config, and the Pareto front of their metric and bytes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_compress.cli.sweeps.configs import SweptConfig
from lightning_compress.cli.sweeps.processes import fit_in_process
from lightning_compress.drafts import draft_of
from lightning_compress.search.sweeps.keys import key_path
from lightning_compress.search.sweeps.results import SweepResult
from lightning_compress.search.sweeps.settings import settings_of
from lightning_compress.search.sweeps.studies import find_sampler, open_study
from lightning_compress.search.sweeps.trials import seeded
from lightning_compress.search.sweeps.workers import Worker

__all__ = ["print_sweep"]


def print_sweep(words: Sequence[str], command_line: Any) -> None:
    """Run the trials of a study, alone or beside other workers, and print the Pareto front.

    Args:
        words: those after ``sweep``.
        command_line: class of CompressionCLI.
    """
    options, rest = _parser().parse_known_args(words)
    find_sampler(options.sampler, options.seed)  # whether Optuna is there, before everything else
    import optuna

    swept = SweptConfig(rest, command_line)
    swept.check()
    settings = settings_of(
        swept.config,
        swept.ranges,
        metric=options.metric,
        mode=options.mode,
        suffix=options.suffix,
        limit=options.bytes,
    )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = open_study(
        options.study,
        options.name,
        settings,
        sampler=options.sampler,
        seed=options.seed,
        heartbeat=options.heartbeat,
    )
    optuna.logging.disable_default_handler()  # a trial that fails is told in a line
    folder = Path(options.folder or Path("sweeps") / options.name)
    worker = Worker(study, settings, folder, fit_in_process, stop_hopeless=options.stop_hopeless, say=_say)
    try:
        worker.run(options.trials)
    except KeyboardInterrupt:
        sys.exit(130)
    found = SweepResult.of(study)
    print(found.to_json() if options.json else found)
    if options.plot:
        found.draw().savefig(options.plot, dpi=120)
    if options.best:
        _write_best(found, swept, Path(options.best))


def _write_best(found: SweepResult, swept: SweptConfig, path: Path) -> None:
    if found.best is None:
        raise ValueError(
            "need --bytes, and a trial whose file is not larger, to write --best, got none: each trial of a front has "
            "its config in its folder"
        )
    values = {key_path(swept.config, name): value for name, value in found.best.settings.items()}
    with draft_of(path) as draft:
        draft.write_text(yaml.safe_dump(seeded(swept.with_values(values)), sort_keys=False), encoding="utf-8")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lightning-compress sweep",
        description="Search the ranges in the section sweep of a config: each trial is a fit with values put in. Start "
        "the command several times, on machines that reach the database, to share the trials of a study.",
        epilog="All other words are those of fit: --config, --model, --data, --trainer ...",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--study", default="sqlite:///sweep.db", metavar="URL", help="the database (default sqlite:///sweep.db)")
    add("--name", default="sweep", help="name of the study in the database (default sweep)")
    add("--trials", type=int, default=20, metavar="N", help="number of trials, of all workers together (default 20)")
    add("--metric", metavar="NAME", help="one that validation logs (default: the one that a monitor watches)")
    add("--mode", choices=("min", "max"), help="whether the metric is better when smaller or larger")
    add("--suffix", default=".lcz", help="of the file whose bytes count (default .lcz)")
    add("--bytes", type=int, metavar="N", help="best metric of files of at most N bytes, in place of a Pareto front")
    add(
        "--stop_hopeless",
        action="store_true",
        help="stop runs worse than three quarters of the others were; needs --bytes",
    )
    add("--sampler", default="TPESampler", metavar="CLASS", help="a class of optuna.samplers (default TPESampler)")
    add("--seed", type=int, metavar="N", help="of the sampler; give each worker another one")
    add("--folder", metavar="DIR", help="of the folders of trials (default sweeps/NAME)")
    add("--heartbeat", type=int, default=30, metavar="S", help="a worker silent for twice as long is lost (default 30)")
    add("--json", action="store_true", help="print numbers for programs")
    add("--plot", metavar="FILE", help="draw the metric against the bytes (extra plots)")
    add("--best", metavar="FILE", help="write the config of the best trial; needs --bytes")
    return parser
