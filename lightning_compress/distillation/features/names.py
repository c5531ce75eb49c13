"""Names of layers: as in ``named_modules()``, and matched by shell patterns."""

from __future__ import annotations

from fnmatch import fnmatchcase

from lightning_compress.messages import listed

__all__ = ["OUTPUT", "match"]

OUTPUT = ""
"""The name of a network's own output among the outputs of its layers; ``named_modules()`` calls the network so."""


def match(names: list[str], pattern: str, whose: str) -> list[str]:
    """The layer names that match a shell pattern, in order.

    Args:
        names: names of all layers. A layer inside the result of ``torch.compile(module)`` also answers to its name in
            ``module``.
        pattern: ``"layer3"`` or ``"layer?.conv*"``; ``OUTPUT`` is the network's own output.
        whose: ``"student"`` or ``"teacher"``, for the error.

    Raises:
        ValueError: none matches.

    >>> match(["", "conv", "layer1", "layer2"], "layer*", "student")
    ['layer1', 'layer2']
    """
    found = [name for name in names if fnmatchcase(name, pattern) or fnmatchcase(_plain(name), pattern)]
    if not found:
        raise ValueError(
            f"need a layer of the {whose} that matches {pattern!r}, got none; "
            f"there are: {listed(filter(None, map(_plain, names))) or 'none'}"
        )
    return found


def _plain(name: str) -> str:
    """The name of a layer without the wrappers of ``torch.compile(module)``; a wrapper keeps its own name."""
    return name if name.endswith("_orig_mod") else name.replace("_orig_mod.", "")
