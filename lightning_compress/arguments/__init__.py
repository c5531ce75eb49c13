"""Arguments: checks at construction, the ``repr`` of an object with arguments, and their text in a checkpoint."""

from lightning_compress.arguments.answers import check_number_answer, check_scalar_answer, check_tensor_answer
from lightning_compress.arguments.effects import check_effect
from lightning_compress.arguments.functions import check_code, check_criterion, check_function
from lightning_compress.arguments.modules import check_module
from lightning_compress.arguments.texts import argument_texts, shown, signature_repr
from lightning_compress.arguments.values import (
    check_between,
    check_count,
    check_decay,
    check_file,
    check_flag,
    check_fraction,
    check_names,
    check_number,
    check_path,
    check_patterns,
    check_positive,
)

__all__ = [
    "argument_texts",
    "check_between",
    "check_code",
    "check_count",
    "check_criterion",
    "check_decay",
    "check_effect",
    "check_file",
    "check_flag",
    "check_fraction",
    "check_function",
    "check_module",
    "check_names",
    "check_number",
    "check_number_answer",
    "check_path",
    "check_patterns",
    "check_positive",
    "check_scalar_answer",
    "check_tensor_answer",
    "shown",
    "signature_repr",
]
