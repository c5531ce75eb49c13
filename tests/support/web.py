"""The npm package of ONNX Runtime Web, which ``make`` installs beside the packages of Python."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["web_package"]


def web_package() -> Path | None:
    """The folder ``node_modules`` that has it; None where npm could not install it."""
    folder = Path(__file__).parents[2] / ".venv" / "web" / "node_modules"
    found = (folder / "onnxruntime-web" / "package.json").is_file() and shutil.which("node")
    return folder if found else None
