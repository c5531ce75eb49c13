r"""Formulas, ``$...$`` and ``$$...$$`` in a page, become MathML: browsers show it without a script or a font."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """Called by MkDocs for every page."""
    return _FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    kind = "inline" if match[1] == "span" else "block"
    return f'<{match[1]} class="formula">{convert(html.unescape(match[2]), display=kind)}</{match[1]}>'
