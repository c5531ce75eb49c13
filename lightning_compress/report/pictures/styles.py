"""One style for all pictures, and their text as SVG that a page can color."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "AFTER",
    "BEFORE",
    "COLORS",
    "HEIGHT",
    "INK",
    "MANY",
    "WIDTH",
    "new_figure",
    "save",
    "svg_of",
    "tidy",
]

BEFORE, AFTER, INK = "#9aa5b1", "#2f6fde", "#3a4350"
COLORS = (AFTER, "#e0752d", "#2b9a66", "#a45bc9", "#c0392b", "#7f8c3b")
"""Colors of lines and bars that can be read on white and on black, and without red and green apart."""

WIDTH, HEIGHT = 5.4, 2.2
MANY = 32
"""Layers that are drawn with their names; more are a profile along the network."""

_PARAMETERS: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.facecolor": "none",
    "font.size": 9,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "lightning-compress",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


_DRAWN: WeakKeyDictionary[Figure, str] = WeakKeyDictionary()


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context(_PARAMETERS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # names in other scripts
        yield


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """An empty figure of so many inches, which belongs to no window.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("need matplotlib to draw: pip install 'lightning-compress[plots]'") from error
    return Figure(figsize=(width, height), layout="constrained")


@contextmanager
def tidy(width: float = WIDTH, height: float = HEIGHT) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes in the style of the reports, for a ``with`` statement."""
    figure = new_figure(width, height)
    with _style():
        yield figure, figure.subplots()


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and SVG.

    Args:
        figure: the figure.
        path: the files without their suffix.
    """
    path.with_suffix(".svg").write_text(_rendered(figure), encoding="utf-8")
    with _style():
        figure.savefig(path.with_suffix(".png"), dpi=140, facecolor="white")


def svg_of(figure: Figure, prefix: str) -> str:
    """A figure as SVG for a page: text stays text, ink is the color of the page, and names are unique.

    Args:
        figure: the figure.
        prefix: put before the names of its parts; another one for every picture of a page.
    """
    text = _rendered(figure)
    text = text[text.index("<svg") :]
    text = text.replace(INK, "currentColor")
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\1{prefix}-", text)
    return re.sub(r"font: [^;\"]*;?", _font, text)


def _rendered(figure: Figure) -> str:
    """A figure as SVG, which is drawn once for the file and for the page."""
    if figure not in _DRAWN:
        buffer = io.StringIO()
        with _style():
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        _DRAWN[figure] = buffer.getvalue()
    return _DRAWN[figure]


def _font(found: re.Match[str]) -> str:
    size = re.search(r"([\d.]+)px", found.group())
    weight = "font-weight: 600; " if "bold" in found.group() else ""
    return f"{weight}font-size: {size.group(1)}px;" if size else ""
