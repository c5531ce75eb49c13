"""Pages of the catalog: every name with its line, one kind, or one name with its arguments."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from textwrap import fill, indent, wrap

from lightning_compress.cli.catalog.kinds import KINDS, Shelf
from lightning_compress.cli.catalog.sources import Entry, entry

__all__ = ["catalog_page", "names_of"]

_WIDTH = 79


def catalog_page(wanted: str | None) -> str:
    """The page that ``list`` prints.

    Args:
        wanted: a kind, a name, or None for all kinds.

    Raises:
        ValueError: there is no such kind or name.

    >>> print(catalog_page("granularities"))
    QATCallback.granularity
      PerTensor   One scale for the whole weight.
      ...
    """
    if wanted is None:
        kinds = [_columns(kind, ", ".join(names_of(kind)), 15) for kind in KINDS]
        return "\n".join([*kinds, "", "lightning-compress list KIND says what they do, list NAME their arguments."])
    if wanted in KINDS:
        return "\n\n".join(_shelves(wanted))
    shelved = [(shelf, name) for kind in KINDS for shelf in KINDS[kind] for name in shelf.names]
    found = [(shelf, entry(shelf.module, name)) for shelf, name in shelved if wanted in (name, _shown(shelf, name))]
    if not found:
        names = [name for kind in KINDS for name in [kind, *names_of(kind)]]
        near = difflib.get_close_matches(wanted, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ": lightning-compress list shows all names"
        raise ValueError(f"need a kind out of {', '.join(KINDS)}, or a name, got {wanted!r}{hint}")
    return "\n\n".join(_told(shelf, one) for shelf, one in found)


def names_of(kind: str) -> list[str]:
    """The names of a kind, as a config writes them."""
    return list(dict.fromkeys(_shown(shelf, name) for shelf in KINDS[kind] for name in shelf.names))


def _shown(shelf: Shelf, name: str) -> str:
    return (shelf.taker.endswith(".formats") and entry(shelf.module, name).suffix) or name


def _shelves(kind: str) -> Iterator[str]:
    takers = dict.fromkeys(shelf.taker for shelf in KINDS[kind])
    width = max(map(len, names_of(kind))) + 4
    for taker in takers:
        rows = [
            _columns(f"  {_shown(shelf, name)}", entry(shelf.module, name).line, width)
            for shelf in KINDS[kind]
            if shelf.taker == taker
            for name in shelf.names
        ]
        yield "\n".join([*([taker] if taker else []), *rows])


def _columns(left: str, right: str, width: int) -> str:
    first, *others = wrap(right, _WIDTH - width)
    return "\n".join([f"{left:<{width}}{first}", *(" " * width + line for line in others)])


def _told(shelf: Shelf, one: Entry) -> str:
    place = f"{one.name}, for {shelf.taker}" if shelf.taker else one.name
    parts = [place, *(_filled(part) for part in one.text.split("\n\n"))]
    if one.arguments:
        rows = []
        for argument in one.arguments:
            default = "required" if argument.default == "required" else f"default {argument.default}"
            rows += [f"  {argument.name} ({default})", indent(fill(argument.text, _WIDTH - 6), " " * 6)]
        parts.append("\n".join(row for row in ["arguments:", *rows] if row))
    parts.append(_yaml(shelf, one))
    return "\n\n".join(parts)


def _filled(text: str) -> str:
    """Lines of at most 79 characters; the rows of a table are indented after their first line."""
    later = " " * 4 * ("\n" in text)
    return "\n".join(fill(line, _WIDTH, subsequent_indent=later) for line in text.splitlines())


def _yaml(shelf: Shelf, one: Entry) -> str:
    if not shelf.taker:
        needed = [argument.name for argument in one.arguments if argument.default == "required"]
        init = f"\n    init_args: {{{', '.join(f'{name}: ...' for name in needed)}}}" if needed else ""
        return f"in YAML:\n  - class_path: {one.name}{init}"
    key = shelf.taker.partition(".")[2]
    if one.suffix:
        return f"in YAML:\n  {key}: [{one.suffix}]"
    value = f"{{class_path: {one.name}, init_args: {{...}}}}" if one.arguments else one.name
    return f"in YAML:\n  {key}: [{value}]" if key == "losses" else f"in YAML:\n  {key}: {value}"
