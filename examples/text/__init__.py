"""Docstrings of scientific packages, classified by a small transformer that is quantized while it trains."""

from examples.text.data import DocstringData
from examples.text.models import Transformer

__all__ = ["DocstringData", "Transformer"]
