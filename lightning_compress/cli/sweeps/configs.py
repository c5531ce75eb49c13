"""Configs of sweeps: all arguments of a config, its ranges, and a check of the values that a trial may put in."""

from __future__ import annotations

import re
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import get_loader

from lightning_compress.cli.vocabulary import expanded
from lightning_compress.search.sweeps.keys import KeyPath, key_paths, put
from lightning_compress.search.sweeps.ranges import ranges_of
from lightning_compress.search.sweeps.trials import check_places

__all__ = ["SweptConfig"]


class SweptConfig:
    """The config that the words of ``fit`` give.

    Attributes:
        ranges: its section ``sweep``.
        config: the rest, with all arguments of the classes that it names.
    """

    def __init__(self, words: Sequence[str], command_line: Any) -> None:
        cli = _parsing(command_line)(
            args=["fit", *words], save_config_callback=None, parser_kwargs={"exit_on_error": False}
        )
        self._parser = cli._parser("fit")
        dumped = self._parser.dump(cli.config["fit"], skip_none=False)
        config = get_loader("yaml")(dumped)
        self.ranges: Mapping[str, Any] = config.pop("sweep", {})
        self.config: Mapping[str, Any] = config

    def check(self) -> None:
        """Refuse a range of no key or of a folder, one with a value that the key does not take, and two of one value.

        Raises:
            ValueError: the range and the reason.
        """
        ranges = ranges_of(self.ranges)
        paths = key_paths(self.config, ranges)
        check_places(paths)
        for name, path in paths.items():
            for value in ranges[name].ends:
                self._check(name, path, value)

    def _check(self, name: str, path: KeyPath, value: object) -> None:
        try:
            self._parser.parse_object(self.with_values({path: value}))
        except ArgumentError as error:
            reason = _last_line(error)
            raise ValueError(f"need values that {name} takes in the section sweep, got {value!r}: {reason}") from error

    def with_values(self, values: Mapping[KeyPath, Any]) -> dict[str, Any]:
        """The config with values at some keys, and dotted paths for bare names."""
        whole: dict[str, Any] = expanded(put(self.config, values))
        return whole


def _last_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return re.sub(r"\s+", " ", str(error).strip().splitlines()[-1])


def _parsing(kind: Any) -> Any:
    class Parsing(kind):  # type: ignore[misc]
        """Parses the words of a fit; nothing is built."""

        def _set_seed(self) -> None:
            return

        def before_instantiate_classes(self) -> None:
            return

        def instantiate_classes(self) -> None:
            return

        def _run_subcommand(self, subcommand: str) -> None:
            return

    return Parsing
