"""The command ``sweep``: many runs of one config, and the Pareto front of their metric and bytes."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_compress.cli.measures.searches import check_outputs, save_plot
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


def print_sweep(options: Namespace, words: Sequence[str], command_line: Any) -> None:
    """Run the trials of a study, alone or beside other workers, and print the Pareto front.

    Args:
        options: those of ``sweep`` itself.
        words: those of ``fit``.
        command_line: class of CompressionCLI.
    """
    check_outputs(options, "plot", "best")
    if options.best is not None and options.bytes is None:
        raise ValueError("need --bytes to write --best, got none: the trials of a front have their configs in folders")
    find_sampler(options.sampler, options.seed)  # whether Optuna is there, before everything else
    import optuna

    swept = SweptConfig(words, command_line)
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
        save_plot(found.draw(), options.plot)
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
