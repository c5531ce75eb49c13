"""Compilation: what torch's compiler has to know while quantizers come, work and go."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch

__all__ = ["EAGER", "RECOMPUTING", "guard_hooks"]


class _Shared:
    """A context of the whole process: the first of several callbacks to need it enters it, the last to go leaves it."""

    def __init__(self, context: Callable[[], AbstractContextManager[Any]]) -> None:
        self._context = context
        self._users = 0
        self._entered = ExitStack()

    def __enter__(self) -> None:
        if not self._users:
            self._entered.enter_context(self._context())
        self._users += 1

    def __exit__(self, *exception: object) -> None:
        self._users -= 1
        if not self._users:
            self._entered.close()


EAGER = _Shared(lambda: torch.compiler.set_stance("force_eager"))
"""What is compiled runs eagerly."""

RECOMPUTING = _Shared(lambda: torch._functorch.config.patch(ban_recompute_used_far_apart=False))
"""Compiled backward passes compute again what a residual branch adds up and rounds, instead of storing its signs.

The compiler stores them by default, since the shortcut is read once more behind a convolution. What is behind it could
be fused with the backward pass all the same, and on CPUs bits are stored far more slowly than floats.
"""


def guard_hooks() -> None:
    """Let compiled code look for hooks: else, of two models of one class, one may run the code of the other."""
    import torch._dynamo.config as dynamo

    if dynamo.skip_nnmodule_hook_guards:
        dynamo.skip_nnmodule_hook_guards = False
        torch.compiler.reset()  # what was compiled before does not look
