"""A sentence encoder of which only LoRA is trained, while its weights get four bits."""

from examples.adapters.data import EncodedDocstrings
from examples.adapters.models import Encoder

__all__ = ["EncodedDocstrings", "Encoder"]
