"""The prose of docstrings, comments and pages is plain English, and every file and room stays small enough to read.

A free relative ("what it hides stands still") stands where a noun should, and has to be decoded. One in a thousand
words is a slip; more is a style.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_compress"
FILES = sorted(PACKAGE.rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OPENINGS = re.compile(r"(?:^|[.:;] +|\n\n *)((?:What|Of|Who|Whoever|Whose|Behind)\b[^.]{0,60})")


def docstrings(path: Path) -> list[str]:
    """Docstrings of a file, without their doctests and references."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, holders)]
    return ["\n".join(_prose(text.splitlines())) for text in found if text]


def comments(path: Path) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]


def page(path: Path) -> str:
    """A page without its blocks of code, tables and titles of papers."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    text = re.sub(r'"[^"]*"', "", text)
    return "\n".join(line for line in text.splitlines() if not line.startswith(("|", "    ", "#")))


def _prose(lines: list[str]) -> list[str]:
    kept = []
    for line in lines:
        if not line.strip().startswith((">>>", "...", "Paper")):
            kept.append(re.sub(r'"[^"]*"', "", line))
    return kept


def rate(texts: list[str]) -> float:
    """How many free relatives with "what" or "whoever" there are in a thousand words."""
    words = re.findall(r"[A-Za-z']+", " ".join(texts))
    return 1000 * sum(word.lower() in ("what", "whoever", "whatever") for word in words) / max(1, len(words))


def test_the_package_speaks_in_nouns():
    texts = [text for path in FILES for text in docstrings(path) + comments(path)]
    assert rate(texts) < 1, sorted((round(rate(docstrings(p) + comments(p)), 1), p.name) for p in FILES)[-20:]


def test_the_docs_speak_in_nouns():
    assert rate([page(path) for path in PAGES]) < 1, {path.name: round(rate([page(path)]), 1) for path in PAGES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_docstring_opens_with_a_pronoun(path):
    assert [opening for text in docstrings(path) for opening in OPENINGS.findall(text)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_sentence_of_the_docs_opens_with_a_pronoun(path):
    assert OPENINGS.findall(page(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("room", sorted({path.parent for path in FILES}), ids=lambda path: path.name)
def test_rooms_have_few_files(room):
    ground = 4 if room == PACKAGE else 0  # the shared ground: targets, schedules, processes ...
    assert len([path for path in room.glob("*.py") if path.name != "__init__.py"]) <= 8 + 2 * ground
