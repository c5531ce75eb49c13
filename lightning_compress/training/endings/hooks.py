"""Hooks that come after those of all callbacks: the strategy's own hook is called last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_compress.lightnings import Strategy

__all__ = ["after_callbacks"]


def after_callbacks(strategy: Strategy, hook: str, act: Callable[[], None]) -> Callable[[], None]:
    """Call ``act`` once, when ``hook`` of all callbacks, of the module and of the strategy has been called next.

    Args:
        strategy: of the Trainer.
        hook: a hook that the strategy has too: ``"on_train_end"`` or ``"on_exception"``.
        act: what comes last.

    Returns:
        a function that calls it off.
    """
    own = getattr(strategy, hook)
    waiting = [act]

    def shadow(*args: Any) -> None:
        if vars(strategy).get(hook) is shadow:
            del vars(strategy)[hook]
        own(*args)
        while waiting:
            waiting.pop()()

    vars(strategy)[hook] = shadow

    def call_off() -> None:
        waiting.clear()
        if vars(strategy).get(hook) is shadow:
            del vars(strategy)[hook]

    return call_off
