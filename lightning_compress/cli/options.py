"""Options: the words that each command takes beside those of ``fit``; nothing here imports a heavy package."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightning_compress.cli.goals.configs import GOALS, PLACES
from lightning_compress.cli.screens.completion import SHELLS

__all__ = [
    "Parser",
    "compare_parser",
    "completion_parser",
    "export_parser",
    "init_parser",
    "inspect_parser",
    "list_parser",
    "plan_parser",
    "profile_parser",
    "sensitivity_parser",
    "sweep_parser",
]

Parser = argparse.ArgumentParser

_REST = "All other words are those of fit: --config, --ckpt_path, --model, --trainer ..."


def _new(name: str, description: str, *examples: str, rest: bool = False) -> Parser:
    lines = ["examples:", *(f"  lightning-compress {name} {example}".rstrip() for example in examples)]
    return argparse.ArgumentParser(
        f"lightning-compress {name}",
        description=description,
        epilog="\n".join([*([_REST, ""] if rest else []), *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print numbers for programs")


def plan_parser() -> Parser:
    """The words of ``plan``."""
    parser = _new(
        "plan",
        "Predict the effect of the callbacks of a config, before any training.",
        "--config config.yaml",
        "--config config.yaml --json",
        rest=True,
    )
    _json(parser)
    return parser


def sensitivity_parser() -> Parser:
    """The words of ``sensitivity``."""
    parser = _new(
        "sensitivity",
        "Measure the model of a config with one layer compressed at a time, by each of\nits callbacks. "
        "Nothing is trained.",
        "--config config.yaml --ckpt_path last.ckpt",
        "--config c.yaml --drop 0.01 --choice new.yaml",
        rest=True,
    )
    _json(parser)
    add = parser.add_argument
    add("--examples", type=int, default=1024, metavar="N", help="validation examples (default 1024)")
    add("--fisher_examples", type=int, default=512, metavar="N", help="those of the proxy (512)")
    add("--metric", metavar="NAME", help="one that validation_step logs (default: the training loss)")
    add("--mode", choices=("min", "max"), help="whether --metric is better when smaller or larger")
    add("--path", metavar="FILE", help="JSON lines of finished trials: a killed run goes on from there")
    add("--csv", metavar="FILE", help="write the rows")
    add("--plot", metavar="FILE", help="draw a heat map (extra plots)")
    add("--drop", type=float, metavar="X", help="largest drop of a layer alone, for --choice")
    add("--choice", metavar="FILE", help="write the callback that makes each layer smallest, as a config")
    return parser


def sweep_parser() -> Parser:
    """The words of ``sweep``."""
    parser = _new(
        "sweep",
        "Search the ranges in the section sweep of a config: each trial is a fit with\n"
        "values put in. Start the command several times, on machines that reach the\n"
        "database, to share the trials of a study.",
        "--config config.yaml --trials 20",
        "--config config.yaml --bytes 20000 --best best.yaml",
        rest=True,
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
    _json(parser)
    add("--plot", metavar="FILE", help="draw the metric against the bytes (extra plots)")
    add("--best", metavar="FILE", help="write the config of the best trial; needs --bytes")
    return parser


def compare_parser() -> Parser:
    """The words of ``compare``."""
    parser = _new(
        "compare",
        "Size, latency and metric of many runs, by the reports that CompressionReport\nwrote.",
        "runs/*",
        "runs/* --metric val_acc --mode max",
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="a folder with reports in or below it, or a report.json")
    add("--metric", metavar="NAME", help="the metric (default: the one that the monitors watch)")
    add("--mode", choices=("min", "max"), help="whether the metric is better when smaller or larger")
    add("--suffix", default=".lcz", help="of the files whose bytes are compared (default .lcz)")
    _json(parser)
    add("--plot", metavar="FILE", help="draw the metric against the bytes (extra plots)")
    return parser


def _trained(parser: Parser) -> None:
    add = parser.add_argument
    add("path", type=Path, metavar="PATH", help="the folder of a run, a checkpoint .ckpt or an archive .lcz")
    add("--config", type=Path, metavar="FILE", help="config of the run (default: config.yaml of the folder)")
    add("--model", metavar="CLASS", help="dotted path of the class, where there is no config")
    add(
        "--example",
        metavar="SIZES|FILE",
        help="input of forward: sizes as 1,3,224,224, or a .pt or .npy (default: that of the module, or of the data)",
    )


def export_parser() -> Parser:
    """The words of ``export``."""
    parser = _new(
        "export",
        "Write model files of a trained module, and check each of them by reading or\nrunning it.",
        "runs/version_0 --format onnx",
        "best.ckpt --format onnx,pte,tflite --output phone",
        "model.lcz --format pt2 --model my.Net --example 1,8",
    )
    _trained(parser)
    parser.add_argument(
        "--format",
        required=True,
        metavar="LIST",
        help="with commas between them: lcz, onnx, pt2, pte, safetensors, tflite",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the files (default: that of the run)")
    return parser


def profile_parser() -> Parser:
    """The words of ``profile``."""
    parser = _new(
        "profile",
        "Measure one trained module: bytes, zeros, multiply-accumulates, latency.",
        "runs/version_0",
        "last.ckpt --json",
        "model.lcz --model my.Net --example 1,3,32,32",
    )
    _trained(parser)
    _json(parser)
    return parser


def inspect_parser() -> Parser:
    """The words of ``inspect``."""
    parser = _new(
        "inspect",
        "Show the tensors, inputs and layers that a file holds. No code in it runs.",
        "model.lcz",
        "last.ckpt",
        "model.onnx --json",
    )
    parser.add_argument("path", type=Path, metavar="FILE", help="a file .lcz, .ckpt, .onnx, .pte, .tflite or .pt2")
    _json(parser)
    return parser


def init_parser() -> Parser:
    """The words of ``init``."""
    lines = [f"  {name:<14}{goal.line}" for name, goal in GOALS.items()]
    parser = _new(
        "init",
        "\n".join(["Write a config with comments for a goal. No file is overwritten.", "", "goals:", *lines]),
        "smaller-file --example",
        "faster-cpu --model my.Net --data my.Data",
    )
    add = parser.add_argument
    add("goal", choices=tuple(GOALS), metavar="GOAL", help="one of those above")
    add("--output", default="config.yaml", metavar="FILE", help="the new file (default config.yaml)")
    add("--model", default=PLACES["model"], metavar="CLASS", help="dotted path of your LightningModule")
    add("--data", default=PLACES["data"], metavar="CLASS", help="dotted path of your LightningDataModule")
    add("--example", action="store_true", help="write my_project.py too, a module and data with which the config runs")
    add("--metric", metavar="NAME", help="one that validation logs, to keep the best model by (default: keep the last)")
    add("--mode", choices=("min", "max"), help="whether it is better when smaller (default) or larger")
    return parser


def list_parser() -> Parser:
    """The words of ``list``."""
    parser = _new(
        "list",
        "Names that a config may use, with one line each: callbacks, criteria ...",
        "",
        "criteria",
        "PruningCallback",
    )
    parser.add_argument("name", nargs="?", metavar="KIND|NAME", help="a kind, or a name to see its arguments")
    return parser


def completion_parser() -> Parser:
    """The words of ``completion``."""
    parser = _new(
        "completion",
        "Print a script that completes commands, options and their values in a shell.\n"
        "Its place is ~/.config/fish/completions for fish; for other shells, a line of\n"
        '~/.bashrc or ~/.zshrc:  eval "$(lightning-compress completion bash)"',
        "bash",
        "zsh",
        "fish > lightning-compress.fish",
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    return parser
