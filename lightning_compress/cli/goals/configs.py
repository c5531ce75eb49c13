"""Configs of goals: a YAML file with comments, made of a frame and the callbacks of the goal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

__all__ = ["DEFAULT_METRIC", "DEFAULT_MODE", "GOALS", "PLACES", "PROJECT", "Goal", "config_of", "project"]

DEFAULT_METRIC, DEFAULT_MODE = "val_acc", "max"
"""The metric of a goal that needs one, where none is named."""

PLACES = {"model": "my_project.MyModule", "data": "my_project.MyData"}
"""Option of ``init`` -> the dotted path that stands in for the one of the user."""

PROJECT = "my_project.py"
"""The file that :data:`PLACES` name."""

_FOLDER = Path(__file__).parent
_BEST = """\
      # The best model among those that reached the asked compression, and the last one, to go on from.
      init_args: {monitor: @metric@, mode: @mode@, filename: best, save_last: true}"""
_LAST = """\
      # The last model, to go on from. To keep the best one, add a metric that validation logs:
      # {monitor: val_acc, mode: max, filename: best, save_last: true}
      init_args: {save_last: true}"""


@dataclass(frozen=True)
class Goal:
    """A goal.

    Attributes:
        line: the goal in a sentence.
        formats: suffixes of the model files.
        extra: extra of this package that the config needs; empty for none.
    """

    line: str
    formats: str = "[.lcz]"
    extra: str = ""


GOALS = {
    "smaller-file": Goal("A file several times smaller, by zeros and few distinct values."),
    "file-size": Goal("A file that fits a number of bytes."),
    "small-loss": Goal("The smallest file with which a metric of a trained model holds."),
    "faster-cpu": Goal("A model that computes in 8-bit integers on CPUs.", "[.lcz, .onnx]", "onnx"),
    "phone": Goal("8-bit models for phones: ExecuTorch and LiteRT.", "[.lcz, .pte, .tflite]", "executorch,litert"),
    "half-macs": Goal("Half the multiply-accumulates, by fewer channels.", "[.lcz, .onnx]", "channels,onnx"),
    "distil": Goal("A model with 80 % zeros that learns from a trained teacher."),
}
"""Name -> goal."""


def config_of(goal: str, *, path: str, model: str, data: str, metric: str | None, mode: str) -> str:
    """The config of a goal, as YAML with comments.

    Args:
        goal: a name of :data:`GOALS`.
        path: name of the file, for the comments.
        model: dotted path of the LightningModule.
        data: dotted path of the LightningDataModule.
        metric: name of a metric that validation logs; None for a config that monitors none, unless the goal needs one.
        mode: ``"min"`` or ``"max"``.

    >>> print(config_of("file-size", path="a.yaml", model="m.Net", data="m.Data", metric="val_acc", mode="max")[:38])
    # A file that fits a number of bytes.
    """
    chosen = GOALS[goal]
    callbacks = indent(_read(goal).rstrip("\n"), "    ")
    values = {
        "line": chosen.line,
        "goal": goal,
        "path": path,
        "model": model,
        "data": data,
        "metric": metric or DEFAULT_METRIC,
        "mode": mode if metric else DEFAULT_MODE,
        "formats": chosen.formats,
    }
    text = _read("frame").replace("@callbacks@", callbacks).replace("@checkpoint@", _LAST if metric is None else _BEST)
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def project() -> str:
    """The code of a module and data that :data:`PLACES` name."""
    return (_FOLDER / "my_project.txt").read_text(encoding="utf-8")


def _read(name: str) -> str:
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
