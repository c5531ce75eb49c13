"""Forked children: each works until it is done, or is killed in the middle."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from multiprocessing import get_context
from multiprocessing.connection import Connection
from random import Random
from threading import RLock
from typing import Any

import torch
from tqdm.std import tqdm

__all__ = ["Mark", "Work", "finish", "kill"]

FORK = get_context("fork")  # a child has imported everything
tqdm.set_lock(RLock())  # its own is shared by all processes, and a child may be killed while it holds it

Mark = Callable[[], None]
Work = Callable[[Mark], Any]
"""Calls its argument twice, where the span in which it may be killed begins and ends; the result is plain values."""


def finish(work: Work) -> tuple[Any, float]:
    """The result of ``work`` in a child, and the seconds between its two marks."""
    child, pipe = _start(work)
    pipe.recv()
    began = time.perf_counter()
    pipe.recv()
    seconds = time.perf_counter() - began
    result = pipe.recv()
    child.join()
    return result, seconds


def kill(work: Work, seconds: float, random: Random) -> bool:
    """SIGKILL a child at a random instant of the ``seconds`` after its first mark.

    Returns:
        Whether the instant came before the second mark.
    """
    child, pipe = _start(work)
    pipe.recv()
    early = not pipe.poll(random.uniform(0, seconds))
    child.kill()
    if not early:
        pipe.recv()  # raises if the child has failed
    child.join()
    return early and child.exitcode == -signal.SIGKILL


def _start(work: Work) -> tuple[Any, Connection]:
    ours, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_work, args=(work, theirs))
    child.start()
    theirs.close()
    return child, ours


def _work(work: Work, pipe: Connection) -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    with redirect_stdout(StringIO()):
        pipe.send(work(lambda: pipe.send(None)))
