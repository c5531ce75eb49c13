"""State dicts: how the one in a file differs from that of a module, in a sentence."""

from __future__ import annotations

import re

__all__ = ["difference"]

_MISSING, _UNEXPECTED = "Missing key(s) in state_dict:", "Unexpected key(s) in state_dict:"
_SIZES = re.compile(
    r"size mismatch for (\S+): copying a param with shape torch.Size\((.*?)\) from checkpoint, the shape in current "
    r"model is torch.Size\((.*?)\)"
)


def difference(error: BaseException) -> str | None:
    """The listing of ``load_state_dict`` as a sentence, with its probable reason; None for an error of other code.

    >>> from torch import nn
    >>> try:
    ...     nn.Linear(2, 1).load_state_dict(nn.Linear(3, 1, bias=False).state_dict())
    ... except RuntimeError as error:
    ...     print(difference(error))
    the file lacks 1 name of the module (bias), and has 1 tensor of another shape (weight: [1, 3], not [1, 2])
    """
    text = str(error)
    if not isinstance(error, RuntimeError) or not text.startswith("Error(s) in loading state_dict"):
        return None
    missing, unexpected = (_names(text, heading) for heading in (_MISSING, _UNEXPECTED))
    sizes = [f"{name}: {theirs}, not {mine}" for name, theirs, mine in _SIZES.findall(text)]
    found = []
    if missing:
        found.append(f"lacks {_counted(missing, 'name')} of the module ({_first(missing)})")
    if unexpected:
        found.append(f"has {_counted(unexpected, 'name')} that the module lacks ({_first(unexpected)})")
    if sizes:
        found.append(f"has {_counted(sizes, 'tensor')} of another shape ({_first(sizes)})")
    if not found:
        return " ".join(text.split())[:300]
    return f"the file {', and '.join(found)}"


def _counted(names: list[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''}"


def _first(names: list[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")


def _names(text: str, heading: str) -> list[str]:
    return [name for line in text.splitlines() if heading in line for name in re.findall(r'"([^"]*)"', line)]
