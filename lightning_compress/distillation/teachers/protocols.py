"""The protocol of a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from lightning_compress.distillation.features import NetworkCall

__all__ = ["Convert", "Teacher"]

Convert = Callable[[nn.Module], nn.Module]


@runtime_checkable
class Teacher(Protocol):
    """Answers the inputs of the student's network. ``Live(module)`` makes a teacher of any module."""

    def begin(self, student: nn.Module, network: str, convert: Convert) -> None:
        """Prepare for a fit.

        Args:
            student: the module that is taught.
            network: name of the student's submodule whose calls are answered; empty for the student itself.
            convert: sets a module to the precision of the run.
        """

    def follow(self, student: nn.Module, step: int) -> None:
        """Learn that the student has taken ``step`` optimizer steps; called before each training step."""

    def layers(self, pattern: str) -> list[str]:
        """The names that match a shell pattern; if none does, an error that lists all names."""
        ...

    def answer(self, call: NetworkCall, layers: Sequence[str]) -> Mapping[str, Tensor]:
        """The outputs of the named layers for the inputs of ``call``."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs; empty for a teacher that does not change."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""
