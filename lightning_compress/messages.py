"""Messages: names in them, which may hold any letters, and of which a large model has hundreds."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from itertools import accumulate, islice
from textwrap import fill

__all__ = ["WIDTH", "for_terminal", "hint", "listed", "listed_by_reason", "plain", "shortened", "wrapped"]

WIDTH = 80
"""Characters of a line where the width of the terminal is not asked."""

_MOST, _LONGEST = 8, 200  # names in a message, and their characters


def listed(names: Iterable[str]) -> str:
    """Names for a message: of many, those that differ in a number count as one, and only the first are shown.

    >>> listed(["stem.weight", *(f"blocks.{i}.fc.weight" for i in range(300)), "head.weight"])
    'stem.weight, blocks.*.fc.weight (300), head.weight'
    >>> listed("abcdefghijk")
    'a, b, c, d, e, f, g, h and 3 more'
    """
    names = list(names)
    alike: dict[str, list[str]] = {}
    for name in names:
        kind = re.sub(r"\d+", "*", name) if len(names) > _MOST else name
        alike.setdefault(kind, []).append(name)
    shown = [same[0] if len(same) == 1 else f"{kind} ({len(same)})" for kind, same in alike.items()]
    lengths = accumulate(len(one) + 2 for one in shown)
    fitting = max(1, sum(length <= _LONGEST for length in islice(lengths, _MOST)))
    rest = sum(len(same) for same in list(alike.values())[fitting:])
    return ", ".join(shown[:fitting]) + (f" and {rest} more" if rest else "")


def listed_by_reason(skipped: Mapping[str, str]) -> list[str]:
    """The names that were skipped for each reason, as a message shows them; many reasons are shown as many names are.

    >>> listed_by_reason({"stem": "excluded", "norm": "normalization", "head": "excluded"})
    ['excluded: stem, head', 'normalization: norm']
    >>> listed_by_reason({f"blocks.{i}.fc": f"blocks.{i}.norm normalizes over its channels" for i in range(300)})
    ['blocks.*.norm normalizes over its channels: blocks.*.fc (300)']
    """
    many = len(set(skipped.values())) > _MOST
    names: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        names.setdefault(re.sub(r"\d+", "*", reason) if many else reason, []).append(name)
    lines = [f"{reason}: {listed(same)}" for reason, same in names.items()]
    return lines[:_MOST] + ([f"and {len(lines) - _MOST} other reasons"] if len(lines) > _MOST else [])


def plain(text: str) -> str:
    r"""A text without control characters: a line break, an escape sequence or a change of direction is shown as code.

    >>> print(plain("a\x1b[2J" + chr(0x202E) + "b"))
    a\x1b[2J\u202eb
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def shortened(name: str, width: int) -> str:
    """A dotted name in at most ``width`` letters: its end, and the numbers before it, which tell layers apart.

    >>> shortened("encoder.layer.11.attention.self.query.weight", 24)
    '…11…self.query.weight'
    >>> shortened("model.blocks_3.query_projection.weight", 30)
    '…3.query_projection.weight'
    >>> shortened("model.blocks_3.query_projection.weight", 20)
    '…y_projection.weight'
    """
    if len(name) <= width:
        return name
    parts = name.split(".")
    inner = range(len(parts) - 2)
    numbered = [index for index in inner if any(map(str.isdigit, parts[index]))]
    words = [(index, "…") for index in inner if index not in numbered]
    digits = [(index, re.sub(r"\D+", "…", parts[index])) for index in numbered]
    for index, part in (*words, *digits, *((index, "…") for index in numbered)):
        parts[index] = part
        short = re.sub(r"(\.?…\.?)+", "…", ".".join(parts))
        if len(short) <= width:
            return short
    return f"…{name[len(name) + 1 - width :]}"


def wrapped(line: str, width: int = WIDTH) -> str:
    """A line, broken into lines of at most ``width`` characters that are indented by two more than its first.

    >>> print(wrapped("  left alone, bias or vector: encoder.fc1.bias, encoder.fc2.bias, encoder.fc3.bias"))
      left alone, bias or vector: encoder.fc1.bias, encoder.fc2.bias,
        encoder.fc3.bias
    """
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return fill(line, width, subsequent_indent=indent, break_on_hyphens=False)


def for_terminal(text: str) -> str:
    """Lines, each broken to the width of the terminal that shows standard error; as they are where there is none."""
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
    except (AttributeError, OSError, ValueError):  # a pipe, a notebook, a file
        return text
    return "\n".join(wrapped(line, width) for line in text.splitlines()) if width > len("  left alone, ") else text


def hint(name: str, names: Iterable[str]) -> str:
    """A question after the name that is near, for the end of a message; empty if none is.

    >>> hint("sparsty", ["scope", "sparsity"])
    "; did you mean 'sparsity'?"
    """
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
