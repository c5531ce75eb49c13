"""Docstrings of the package, for Markdown: roles, formulas, tables, literal blocks and doctests are translated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|mod|meth|attr):`(~?)(\.?)([\w.]+)`")
_EDGE = re.compile(r"=+( +=+)+$")


class Docstrings(griffe.Extension):
    """Translates the docstring of every object when it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = translated(obj.docstring.value, obj)


def translated(text: str, obj: griffe.Object) -> str:
    """The docstring in Markdown."""
    lines = _fenced(_tabled(_displayed(text.splitlines())))
    text = re.sub(r":math:`([^`]+)`", r"$\1$", "\n".join(lines))
    text = re.sub(r"^(Papers?|Note):", r"**\1:**", text, flags=re.MULTILINE)
    return _ROLE.sub(lambda match: _reference(match, obj), text)


def _reference(match: re.Match[str], obj: griffe.Object) -> str:
    """A link to the object where the site shows it, else its name."""
    short, relative, name = match.groups()
    shown = name.rpartition(".")[2] if short else name
    where = next((path for path in _candidates(name, relative, obj) if _exists(path, obj)), name)
    return f'<autoref identifier="{where}" optional><code>{shown}</code></autoref>'


def _candidates(name: str, relative: str, obj: griffe.Object) -> Iterator[str]:
    scopes = [] if name.startswith("lightning_compress.") else obj.path.split(".")
    for depth in range(len(scopes), 0, -1):
        yield ".".join([*scopes[:depth], name])
    yield name


def _exists(path: str, obj: griffe.Object) -> bool:
    parts = path.split(".")
    try:
        return parts[0] == obj.package.name and bool(obj.package[parts[1:]])
    except (KeyError, griffe.AliasResolutionError):
        return False


def _displayed(lines: list[str]) -> Iterator[str]:
    """``.. math::`` and its continuation lines -> ``$$ ... $$``."""
    formula: list[str] = []
    for line in [*lines, ""]:
        if line.lstrip().startswith(".. math::"):
            formula = [line.split("::", 1)[1].strip()]
        elif formula and line.strip():
            formula.append(line.strip())
        else:
            if formula:
                yield from ("$$", *formula, "$$")
            formula = []
            yield line


def _tabled(lines: Iterator[str]) -> Iterator[str]:
    """A table between lines of ``====`` -> a table of bars."""
    rows: list[list[str]] | None = None
    for line in lines:
        if _EDGE.match(line.strip()):
            if rows is not None:
                yield from _bars(rows)
            rows = [] if rows is None else None
        elif rows is None:
            yield line
        elif line.startswith(" "):
            rows[-1][1] += " " + line.strip()
        else:
            rows.append(re.split(r" +", line, maxsplit=1))


def _bars(rows: list[list[str]]) -> Iterator[str]:
    yield from ("| | |", "| --- | --- |")
    for name, meaning in rows:
        yield f"| {name} | {meaning} |"


def _fenced(lines: Iterator[str]) -> Iterator[str]:
    """Literal blocks after ``::`` and doctests -> blocks with a language."""
    kept = list(lines)
    at = 0
    while at < len(kept):
        line = kept[at]
        if line.startswith(">>> "):
            end = next((k for k in range(at, len(kept)) if not kept[k].strip()), len(kept))
            yield from ("", "```pycon", *kept[at:end], "```")
            at = end
        elif line.endswith("::"):
            end = next((k for k in range(at + 1, len(kept)) if kept[k][:1].strip()), len(kept))
            block = "\n".join(kept[at + 1 : end]).strip("\n").splitlines()
            language = "yaml" if "YAML" in line else "python" if line.startswith("Example") else "text"
            yield from (line[:-1], "", f"```{language}", *(row[4:] for row in block), "```", "")
            at = end
        else:
            yield line
            at += 1
