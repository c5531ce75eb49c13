"""Processes of trials: each run has a process of its own, so a crash ends one trial and not the sweep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from lightning_compress.cli.sweeps.trial import LOG, WORKER
from lightning_compress.search.sweeps.trials import TrialError, Watch

__all__ = ["fit_in_process"]

_COMMAND = [sys.executable, "-m", "lightning_compress.cli.sweeps.trial"]
_LOOKS = 0.5  # seconds between two looks at the log
_GRACE = 10  # seconds that a stopped trial has to end by itself
_ERROR = "lightning-compress: error: "


def fit_in_process(config: Path, watch: Watch) -> bool:
    """Run ``fit`` with a config in a new process; its output is in ``output.txt`` and ``errors.txt`` beside the config.

    Args:
        config: the file.
        watch: metrics of a validation -> whether the run is to stop.

    Returns:
        Whether the run came to its end; False if it was stopped.

    Raises:
        TrialError: the run failed; the message is the last line that it wrote.
    """
    command = [*_COMMAND, "fit", "--config", str(config)]
    errors = config.with_name("errors.txt")
    with config.with_name("output.txt").open("wb") as told, errors.open("wb") as failed:
        process = subprocess.Popen(  # noqa: S603 - this Python, and a config that the user runs
            command,
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=failed,
            env={**os.environ, WORKER: str(os.getpid())},
            start_new_session=True,  # a group of its own, which is ended as a whole
        )
        try:
            stopped = _watched(process, config.with_name(LOG), watch)
        finally:
            _end(process)
    if stopped:
        return False
    if process.returncode != 0:
        raise TrialError(_reason(process.returncode, errors))
    return True


def _watched(process: subprocess.Popen[bytes], log: Path, watch: Watch) -> bool:
    """Wait for the end of a process; True as soon as the watch says so."""
    read = 0
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOKS)
        lines = log.read_text(encoding="utf-8").split("\n")[:-1] if log.exists() else []
        for line in lines[read:]:
            if watch(json.loads(line)) and process.returncode is None:
                return True
        read = len(lines)
        if process.returncode is not None:
            return False


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    for sign in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, sign)
        else:
            process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            continue
        return


def _reason(code: int, errors: Path) -> str:
    lines = [line.strip() for line in errors.read_text(encoding="utf-8", errors="replace").splitlines()]
    said = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    if said:
        return said[-1]
    if code < 0:
        return f"its process was ended by signal {-code}; see {errors}"
    last = next((line for line in reversed(lines) if line), f"its process ended with code {code}")
    return f"{last}; see {errors}"
