"""Settings of a sweep, which all its workers have in common: the study holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lightning_compress.arguments import check_count
from lightning_compress.report.headlines import direction

__all__ = ["Settings", "callbacks_of", "monitors_of", "settings_of"]


@dataclass(frozen=True)
class Settings:
    """The aims of a sweep and the config that its trials have in common.

    Attributes:
        metric: name of the metric.
        mode: whether it is better when it is smaller (``"min"``) or larger (``"max"``).
        suffix: that of the file whose bytes count.
        bytes: the largest number of bytes; the metric is the only aim then. None if bytes are an aim as well.
        ranges: the section ``sweep`` of the config.
        config: the config without that section.
    """

    metric: str
    mode: Literal["min", "max"]
    suffix: str
    bytes: int | None
    ranges: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """The directions of the aims, as Optuna names them."""
        metric: Literal["minimize", "maximize"] = "minimize" if self.mode == "min" else "maximize"
        return [metric] if self.bytes is not None else [metric, "minimize"]

    def difference(self, other: Mapping[str, Any]) -> str:
        """The first setting that differs from those of another worker, in words; empty if none does.

        Args:
            other: settings as a mapping.
        """
        mine, theirs = _leaves(json.loads(json.dumps(asdict(self)))), _leaves(dict(other))
        for name in sorted({*mine, *theirs}):
            if mine.get(name) != theirs.get(name):
                return f"{name} is {theirs.get(name)!r} there and {mine.get(name)!r} here"
        return ""


def settings_of(
    config: Mapping[str, Any],
    ranges: Mapping[str, Any],
    *,
    metric: str | None,
    mode: Literal["min", "max"] | None,
    suffix: str,
    limit: int | None,
) -> Settings:
    """Settings, with the metric and its direction by the monitors of the config, if they are not given.

    Args:
        config: the config with all its arguments.
        ranges: its section ``sweep``.
        metric: name of the metric.
        mode: its direction.
        suffix: that of the file whose bytes count.
        limit: the largest number of bytes, if the metric is the only aim.

    Raises:
        ValueError: no metric or several, a direction that nothing says, or a file that the config does not write.
    """
    monitors = monitors_of(config)
    if metric is None:
        if len(monitors) != 1:
            found = f"monitors of {', '.join(sorted(monitors))}" if monitors else "no monitor"
            raise ValueError(f"need --metric, the name of a metric that validation logs; the config has {found}")
        (metric,) = monitors
    mode = mode or direction(metric, monitors)
    if mode is None:
        raise ValueError(f"need --mode min or --mode max, since nothing says when {metric} is better, got none")
    if limit is not None:
        check_count(bytes=limit)
    _check_suffix(config, suffix)
    return Settings(metric, mode, suffix, limit, ranges, config)


def monitors_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Metric -> ``"min"`` or ``"max"``, of the callbacks of a config that watch a metric.

    >>> checkpoint = {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val_acc", "mode": "max"}}
    >>> monitors_of({"trainer": {"callbacks": [checkpoint]}})
    {'val_acc': 'max'}
    """
    arguments = [entry.get("init_args") or {} for entry in callbacks_of(config)]
    watching = [given for given in arguments if given.get("monitor") and given.get("mode") in ("min", "max")]
    return {given["monitor"]: given["mode"] for given in watching}


def callbacks_of(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The callbacks of a config, each with its ``class_path``; of a single one, a list of it.

    >>> callbacks_of({"trainer": {"callbacks": "Timer"}})
    [{'class_path': 'Timer'}]
    """
    given = (config.get("trainer") or {}).get("callbacks") or []
    entries = given if isinstance(given, list) else [given]
    named = [{"class_path": entry} if isinstance(entry, str) else entry for entry in entries]
    return [entry for entry in named if isinstance(entry, dict)]


def _check_suffix(config: Mapping[str, Any], suffix: str) -> None:
    """Refuse a suffix that no report of the config writes; the bytes of the archive are in every report."""
    reports = [entry for entry in callbacks_of(config) if str(entry.get("class_path")).endswith(".CompressionReport")]
    formats = [one for entry in reports for one in (entry.get("init_args") or {}).get("formats") or ()]
    if suffix != ".lcz" and suffix not in formats and all(isinstance(one, str) for one in formats):
        raise ValueError(
            f"need --suffix as one of the formats of the CompressionReport in the config, got {suffix!r}; there are: "
            f"{', '.join(formats) or 'none'}"
        )


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for key, one in value.items() for k, v in _leaves(one, f"{name}.{key}".lstrip(".")).items()}
    if isinstance(value, list) and value:
        return {k: v for key, one in enumerate(value) for k, v in _leaves(one, f"{name}.{key}".lstrip(".")).items()}
    return {name: value}
