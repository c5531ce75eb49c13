"""Records: plain values beside the state dict, as JSON, in which a tensor is a number of a tensor of the archive."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from lightning_compress.archive.coding.cursors import ArchiveError

_TENSOR, _TUPLE, _ESCAPE = "#tensor", "#tuple", "#"


def write_records(records: dict[str, Any], first: int) -> tuple[bytes, list[Tensor]]:
    r"""Records as JSON, and the tensors in them in their order.

    JSON has no tensors and no tuples: `{"#tensor": k}` is tensor k, `{"#tuple": [...]}` a tuple. A key of a dictionary
    that begins with `#` gets another one in front.

    Args:
        records: dictionaries with text for keys, lists, tuples, text, numbers, truth values, None and tensors.
        first: the number of the first tensor.

    Raises:
        TypeError: if a value is none of these; subclasses are not, because they would come back as their base.

    Example:
        >>> import torch
        >>> write_records({"bits": 8, "scale": torch.ones(2), "#": (1, None)}, first=5)
        (b'{"bits":8,"scale":{"#tensor":5},"##":{"#tuple":[1,null]}}', [tensor([1., 1.])])
    """
    tensors: list[Tensor] = []

    def plain(value: Any, place: str) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value)
            return {_TENSOR: first + len(tensors) - 1}
        if type(value) is dict and all(type(key) is str for key in value):
            return {
                f"#{key}" if key.startswith(_ESCAPE) else key: plain(v, f"{place}.{key}") for key, v in value.items()
            }
        if type(value) in (list, tuple):
            items = [plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
            return items if type(value) is list else {_TUPLE: items}
        if value is None or type(value) in (str, bool, int, float):
            return value
        raise TypeError(f"need plain values and tensors in records, got {type(value).__name__} for {place[1:]!r}")

    content = plain(records, "")
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(), tensors


def is_plain(value: Any) -> bool:
    """Whether a value can be a record, or a part of one.

    Example:
        >>> is_plain({"widths": (8, 16)}), is_plain({"loss": print})
        (True, False)
    """
    try:
        write_records({"value": value}, 0)
    except (TypeError, ValueError):  # a ValueError for text that is not Unicode
        return False
    return True


def read_records(data: bytes, first: int, tensors: Sequence[Any]) -> dict[str, Any]:
    """The inverse of `write_records`.

    Args:
        data: the JSON; empty if there are no records.
        first: the number of the first tensor.
        tensors: the tensors, or anything that stands for them.

    Raises:
        ArchiveError: if it is not exactly such a JSON.
    """
    try:
        content = json.loads(data or b"{}", object_pairs_hook=lambda pairs: _revived(pairs, first, tensors))
    except ArchiveError:
        raise
    except (ValueError, RecursionError) as error:  # a ValueError for JSON, UTF-8, and numbers of too many digits
        raise ArchiveError(f"the archive is damaged: its records are no JSON ({error})") from None
    if not isinstance(content, dict):
        raise ArchiveError("the archive is damaged: its records are no dictionary")
    return content


def _revived(pairs: list[tuple[str, Any]], first: int, tensors: Sequence[Any]) -> Any:
    revive: dict[str, Callable[[Any], Any]] = {
        _TENSOR: lambda k: tensors[k - first] if type(k) is int and 0 <= k - first < len(tensors) else None,
        _TUPLE: lambda items: tuple(items) if type(items) is list else None,
    }
    if len(pairs) == 1 and pairs[0][0] in revive:
        key, value = pairs[0]
        revived = revive[key](value)
        if revived is None:
            raise ArchiveError(f"the archive is damaged: its records have {key} of {value!r:.40}")
        return revived
    found: dict[str, Any] = {}
    for key, value in pairs:
        name = key[1:] if key.startswith(_ESCAPE * 2) else key
        if name in found or (key.startswith(_ESCAPE) and name == key):
            raise ArchiveError(f"the archive is damaged: its records have the key {key!r:.40} twice, or a foreign one")
        found[name] = value
    return found
