"""Sources: docstrings and arguments of functions and classes, read from files that are not imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

import lightning_compress

__all__ = ["Argument", "Entry", "entry"]

_ROOT = Path(lightning_compress.__file__).parent
_REQUIRED = "required"


@dataclass(frozen=True)
class Argument:
    """An argument of a function or class.

    Attributes:
        name: of the argument.
        default: as it is written; ``"required"`` if there is none.
        text: its part of the docstring, in one line.
    """

    name: str
    default: str
    text: str


@dataclass(frozen=True)
class Entry:
    """A function or a class.

    Attributes:
        name: of the function or class.
        module: its file, as a dotted path.
        line: first sentence of its docstring.
        text: the docstring up to its first section.
        arguments: those of a class; a function is passed as it is, and its arguments are not the user's.
        suffix: of the files that a writer writes; empty for all others.
    """

    name: str
    module: str
    line: str
    text: str
    arguments: tuple[Argument, ...]
    suffix: str = ""


def entry(module: str, name: str) -> Entry:
    """Read a function or class of this package.

    Args:
        module: dotted path of the file within the package.
        name: of the function or class.

    >>> entry("schedules", "Linear").line
    'Even steps: s(x) = x with x = (t - begin) / (until - begin) clipped to [0, 1].'
    >>> [(one.name, one.default) for one in entry("schedules", "Linear").arguments]
    [('begin', '0.0'), ('until', '1.0')]
    """
    nodes = _definitions(module)
    node = nodes[name]
    text = _plain(re.split(r"\n(?:[A-Z]\w+:\n|Papers?:|>>> |=====)", _docstring(node), maxsplit=1)[0])
    arguments = tuple(_arguments(node, nodes)) if isinstance(node, ast.ClassDef) else ()
    suffix = next((part for part in map(_suffix, node.body) if part), "")
    return Entry(name, f"{lightning_compress.__name__}.{module}", text.split("\n\n")[0], text, arguments, suffix)


def _definitions(module: str) -> dict[str, ast.ClassDef | ast.FunctionDef]:
    path = _ROOT.joinpath(*module.split(".")).with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name: node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def _docstring(node: ast.ClassDef | ast.FunctionDef) -> str:
    return cleandoc(ast.get_docstring(node) or "")


def _plain(text: str) -> str:
    r"""Paragraphs of reStructuredText as plain text: no roles, no double backquotes, no formula in TeX, one line each.

    A table has a line for each row, in which the first cell names the others.

    >>> print(_plain("Two.\n\n| when | effect |\n| --- | --- |\n| setup | none |"))
    Two.
    <BLANKLINE>
    setup: none
    """
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?([\w]+)`", r"\1", text).replace("``", "")
    paragraphs = [part.strip() for part in text.split("\n\n")]
    plain = [_rows(part) if part.startswith("|") else re.sub(r"\s*\n\s*", " ", part) for part in paragraphs]
    return "\n\n".join(part for part in plain if part and not part.startswith(".. math::"))


def _rows(table: str) -> str:
    """The rows of a table of Markdown below its head."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in table.splitlines()[2:]]
    return "\n".join(f"{first}: {'; '.join(others)}" for first, *others in rows)


def _arguments(node: ast.ClassDef, nodes: dict[str, ast.ClassDef | ast.FunctionDef]) -> Iterator[Argument]:
    """Those of ``__init__``, else the fields of a dataclass; where a class has none, those of its base in the file."""
    family = list(_family(node, nodes))
    texts = {name: text for one in reversed(family) for name, text in _texts(_docstring(one)).items()}
    made = next((part for one in family for part in one.body if _is_constructor(part)), None)
    if isinstance(made, ast.FunctionDef):
        found = _signature(made)
    else:
        found = {key: default for one in reversed(family) for key, default, plain in _fields(one) if plain}
    for name, default in found.items():
        if not name.startswith("_"):
            yield Argument(name, default, texts.get(name, ""))


def _family(node: ast.ClassDef, nodes: dict[str, ast.ClassDef | ast.FunctionDef]) -> Iterator[ast.ClassDef]:
    yield node
    for base in node.bases:
        parent = nodes.get(ast.unparse(base))
        if isinstance(parent, ast.ClassDef):
            yield from _family(parent, nodes)


def _is_constructor(part: ast.stmt) -> bool:
    return isinstance(part, ast.FunctionDef) and part.name == "__init__"


def _signature(made: ast.FunctionDef) -> dict[str, str]:
    given = made.args.posonlyargs + made.args.args
    defaults: list[ast.expr | None] = [None] * (len(given) - len(made.args.defaults)) + list(made.args.defaults)
    pairs = [*zip(given, defaults, strict=True), *zip(made.args.kwonlyargs, made.args.kw_defaults, strict=True)]
    return {one.arg: _REQUIRED if value is None else ast.unparse(value) for one, value in pairs if one.arg != "self"}


def _fields(node: ast.ClassDef | ast.FunctionDef) -> Iterator[tuple[str, str, bool]]:
    """Name, default and whether it is an argument, of each annotated name in the body of a class."""
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            default = _REQUIRED if part.value is None else ast.unparse(part.value)
            yield part.target.id, default, not ast.unparse(part.annotation).startswith("ClassVar")


def _suffix(part: ast.stmt) -> str:
    if not isinstance(part, ast.Assign) or ast.unparse(part.targets[0]) != "suffix":
        return ""
    return str(ast.literal_eval(part.value))


def _texts(docstring: str) -> dict[str, str]:
    """Argument -> its text in the section ``Args`` or ``Attributes``."""
    section = re.search(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", docstring, re.MULTILINE)
    if section is None:
        return {}
    parts = re.split(r"^    (\w+): ", section[1], flags=re.MULTILINE)[1:]
    return {name: _plain(text) for name, text in zip(parts[::2], parts[1::2], strict=True)}
