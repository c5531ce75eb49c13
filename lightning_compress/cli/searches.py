"""Commands that train nothing: ``plan``, ``sensitivity`` and ``compare``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_compress.cli.prepared import Prepared
from lightning_compress.drafts import draft_of
from lightning_compress.search import Logged, Sensitivity, compare, plan, sensitivity
from lightning_compress.training import WeightCompression

__all__ = ["print_comparison", "print_plan", "print_sensitivity"]


def print_plan(words: Sequence[str], command_line: Any) -> None:
    """Print the plan of a config; see :func:`~lightning_compress.search.plan`.

    Args:
        words: those after ``plan``.
        command_line: class of CompressionCLI.
    """
    parser = _parser("plan", "Predict the effect of the callbacks of a config, before any training.")
    options, rest = parser.parse_known_args(words)
    prepared = Prepared.of(rest, command_line)
    planned = plan(prepared.module, prepared.callbacks, prepared.example(prepared.callbacks))
    _print(planned, options.json)


def print_sensitivity(words: Sequence[str], command_line: Any) -> None:
    """Measure and print the sensitivities of a config; see :func:`~lightning_compress.search.sensitivity`.

    Args:
        words: those after ``sensitivity``.
        command_line: class of CompressionCLI.
    """
    parser = _parser(
        "sensitivity", "Measure the model of a config with one layer compressed at a time, by each of its callbacks."
    )
    parser.add_argument("--examples", type=int, default=1024, metavar="N", help="validation examples (default 1024)")
    parser.add_argument("--fisher_examples", type=int, default=512, metavar="N", help="those of the proxy (512)")
    parser.add_argument("--metric", metavar="NAME", help="one that validation_step logs (default: the training loss)")
    parser.add_argument("--mode", choices=("min", "max"), help="whether --metric is better when smaller or larger")
    parser.add_argument("--path", metavar="FILE", help="JSON lines of finished trials: a killed run goes on from there")
    parser.add_argument("--csv", metavar="FILE", help="write the rows")
    parser.add_argument("--plot", metavar="FILE", help="draw a heat map (extra plots)")
    options, rest = parser.parse_known_args(words)
    prepared = Prepared.of(rest, command_line)
    if not prepared.loaded:
        sys.stderr.write("these are the weights of a new model: pass --ckpt_path to measure a trained one\n")
    found = sensitivity(
        prepared.module,
        prepared.held_out(),
        methods=[callback for callback in prepared.callbacks if isinstance(callback, WeightCompression)],
        metric=None if options.metric is None else Logged(options.metric),
        mode=options.mode,
        examples=options.examples,
        fisher_examples=options.fisher_examples,
        path=options.path,
    )
    _write(found, options)
    _print(found, options.json)


def print_comparison(words: Sequence[str]) -> None:
    """Compare runs by their reports; see :func:`~lightning_compress.search.compare`.

    Args:
        words: those after ``compare``.
    """
    parser = argparse.ArgumentParser(
        "lightning-compress compare",
        description="Size, latency and metric of many runs, by the reports that CompressionReport wrote.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="a folder with reports in or below it, or a report.json"
    )
    parser.add_argument("--metric", metavar="NAME", help="the metric (default: the one that the monitors watch)")
    parser.add_argument("--mode", choices=("min", "max"), help="whether the metric is better when smaller or larger")
    parser.add_argument("--suffix", default=".lcz", help="of the files whose bytes are compared (default .lcz)")
    parser.add_argument("--json", action="store_true", help="print numbers for programs")
    parser.add_argument("--plot", metavar="FILE", help="draw the metric against the bytes (extra plots)")
    options = parser.parse_args(words)
    found = compare(options.paths, metric=options.metric, mode=options.mode, suffix=options.suffix)
    if options.plot:
        found.draw().savefig(options.plot, dpi=120)
    _print(found, options.json)


def _write(found: Sensitivity, options: argparse.Namespace) -> None:
    if options.csv:
        with draft_of(Path(options.csv)) as draft:
            draft.write_text(found.to_csv(), encoding="utf-8")
    if options.plot:
        found.draw().savefig(options.plot, dpi=120)


def _print(result: Any, as_json: bool) -> None:
    print(json.dumps(result.to_dict(), indent=2) if as_json else result)


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        f"lightning-compress {name}",
        description=f"{description} Nothing is trained.",
        epilog="All other words are those of fit: --config, --ckpt_path, --model, --data, --trainer ...",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print numbers for programs")
    return parser
