"""Compilation: settings of torch's compiler while quantizers are attached, used and detached."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch

__all__ = ["EAGER", "RECOMPUTING", "guard_hooks"]


class _Shared:
    """A context of the whole process, shared by callbacks: the first enters it, the last leaves it."""

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
"""Compiled modules run eagerly."""

RECOMPUTING = _Shared(lambda: torch._functorch.config.patch(ban_recompute_used_far_apart=False))
"""Compiled backward passes recompute the rounded sum of a residual addition instead of storing its signs.

By default the compiler stores them, because the shortcut has a second reader after a convolution. Recomputing fuses
with the backward pass all the same, and CPUs store bits far more slowly than floats.
"""


def guard_hooks() -> None:
    """Make compiled code check for hooks: otherwise one of two models of a class may run the code of the other."""
    import torch._dynamo.config as dynamo

    if dynamo.skip_nnmodule_hook_guards:
        dynamo.skip_nnmodule_hook_guards = False
        torch.compiler.reset()  # code that was compiled before does not check
