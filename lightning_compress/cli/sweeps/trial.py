"""The process of one trial: ``python -m lightning_compress.cli.sweeps.trial fit --config FOLDER/config.yaml``.

It is ``lightning-compress fit`` with a log of its validations, and it ends when its worker is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

__all__ = ["LOG", "WORKER", "main"]

LOG = "validations.jsonl"
"""Name of the log, beside the config."""

WORKER = "LIGHTNING_COMPRESS_WORKER"
"""Environment variable that holds the number of the worker's process."""


def main() -> None:
    """Train by the words of the process."""
    # The processes of the other ranks have another parent, and end with this one.
    if WORKER in os.environ and "LOCAL_RANK" not in os.environ:
        threading.Thread(target=_end_with, args=(int(os.environ[WORKER]),), daemon=True).start()
    from lightning_compress.cli.commands import main as command
    from lightning_compress.cli.sweeps.callback import ValidationLog

    command(callbacks=[ValidationLog(Path(sys.argv[-1]).with_name(LOG))])


def _end_with(worker: int) -> None:
    """Kill this process and those that it has started, once the worker is gone; POSIX gives orphans another parent."""
    while os.getppid() == worker:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
