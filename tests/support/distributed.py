"""Runs a function in forked processes that look externally launched, so that a Trainer joins them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import Any

import torch


def run_distributed(function: Callable[..., Any], *args: Any, world_size: int = 2, timeout: float = 60) -> list[Any]:
    """What ``function(*args)`` returns on each rank, in the order of ranks.

    Args:
        function: runs on every rank, with a Trainer of ``devices=world_size``; what it returns pickles.
        args: its arguments.
        world_size: how many processes.
        timeout: seconds until a rank counts as hung.

    Raises:
        RuntimeError: a rank raised; the message holds its traceback.
    """
    context = multiprocessing.get_context("fork")
    results: Queue = context.Queue()
    port = _free_port()
    ranks = [
        context.Process(target=_rank, args=(rank, world_size, port, function, args, results), daemon=True)
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    returned = {}
    try:
        for _ in ranks:
            rank, value, failure = results.get(timeout=timeout)
            if failure:
                raise RuntimeError(f"rank {rank}: {failure}")
            returned[rank] = pickle.loads(value)
    finally:
        for process in ranks:
            process.join(5)
            if process.is_alive():
                process.kill()
    return [returned[rank] for rank in range(world_size)]


def _rank(rank: int, world_size: int, port: int, function: Callable[..., Any], args: Any, results: Queue) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        NODE_RANK="0",
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    try:
        # By value: a tensor put into a queue as it is lives only as long as the process that put it.
        results.put((rank, pickle.dumps(function(*args)), ""))
    except BaseException:
        results.put((rank, b"", traceback.format_exc()))


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
