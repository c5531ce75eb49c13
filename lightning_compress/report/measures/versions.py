"""Versions of the packages that took part in a run."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]

_PACKAGES = (
    *("lightning-compress", "torch", "lightning", "pytorch-lightning"),
    *("onnx", "onnxruntime", "openvino", "executorch", "litert-torch"),
)


def versions() -> dict[str, str]:
    """Package -> version, of Python and of the packages that a model file depends on.

    >>> {"python", "torch", "lightning-compress"} <= versions().keys()
    True
    """
    found = {package: _version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), **{name: known for name, known in found.items() if known}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
