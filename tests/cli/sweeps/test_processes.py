"""Processes of trials; a few lines of Python stand for a fit."""

import os
import signal
import subprocess
import sys

import pytest

from lightning_compress.cli.sweeps import processes, trial
from lightning_compress.cli.sweeps.processes import fit_in_process
from lightning_compress.search.sweeps.trials import TrialError

HEAD = "import os, signal, sys, time; from pathlib import Path; config = Path(sys.argv[-1]); "


@pytest.fixture
def fit(tmp_path, monkeypatch):
    """A fit whose process runs some code."""

    def run(code, watch=lambda metrics: False):
        monkeypatch.setattr(processes, "_COMMAND", [sys.executable, "-S", "-c", HEAD + code])
        return fit_in_process(tmp_path / "config.yaml", watch)

    return run


def test_a_run_that_ends_leaves_its_output(fit, tmp_path):
    seen = []
    code = """
print("done"); print(os.environ["LIGHTNING_COMPRESS_WORKER"], file=sys.stderr)
config.with_name("validations.jsonl").write_text('{"a": 0.5}\\n{"a": 0.75}\\n{"a": 0.')
"""
    assert fit(code, lambda metrics: seen.append(metrics))
    assert seen == [{"a": 0.5}, {"a": 0.75}]
    assert (tmp_path / "output.txt").read_text() == "done\n"
    assert (tmp_path / "errors.txt").read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "sys.exit('lightning-compress: error: need 0 < sparsity < 1, got sparsity=1.5')",
            "need 0 < sparsity < 1, got sparsity=1.5",
        ),
        ("raise RuntimeError('out of memory')", r"RuntimeError: out of memory; see .*errors\.txt"),
        ("sys.exit(3)", r"its process ended with code 3; see .*errors\.txt"),
        ("os.kill(os.getpid(), signal.SIGKILL)", r"its process was ended by signal 9; see .*errors\.txt"),
    ],
    ids=["refused", "raised", "code", "killed"],
)
def test_a_run_that_fails_says_why(code, said, fit):
    with pytest.raises(TrialError, match=f"^{said}$"):
        fit(code)


@pytest.fixture
def alive(tmp_path):
    """A pipe: its text, once every process that holds its other end is gone."""
    os.mkfifo(tmp_path / "alive")
    handle = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(handle, True)
    with open(handle) as file:
        yield file


def test_a_run_is_stopped_with_the_processes_that_it_started(fit, alive, monkeypatch):
    monkeypatch.setattr(processes, "_LOOKS", 0.02)
    code = """
import subprocess
pipe = open(config.with_name("alive"), "w")
subprocess.Popen([sys.executable, "-S", "-c", "import signal; signal.pause()"], pass_fds=[pipe.fileno()])
pipe.write("begun"); pipe.flush()
config.with_name("validations.jsonl").write_text('{"a": 0.5}\\n')
signal.pause()
"""
    assert not fit(code, lambda metrics: metrics["a"] < 0.6)
    assert alive.read() == "begun"


def test_an_interrupted_worker_ends_its_run(fit, alive, monkeypatch):
    monkeypatch.setattr(processes, "_LOOKS", 0.02)
    code = """
pipe = open(config.with_name("alive"), "w"); pipe.write("begun"); pipe.flush()
config.with_name("validations.jsonl").write_text('{"a": 0.5}\\n')
signal.pause()
"""

    def watch(metrics):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(code, watch)
    assert alive.read() == "begun"


def test_the_run_of_a_killed_worker_ends(alive, tmp_path):
    run = f"""
import importlib.util, os, signal, sys, threading
spec = importlib.util.spec_from_file_location("trial", {trial.__file__!r})
trial = importlib.util.module_from_spec(spec)
spec.loader.exec_module(trial)
threading.Thread(target=trial._end_with, args=(int(os.environ[trial.WORKER]),), daemon=True).start()
pipe = open({str(tmp_path / "alive")!r}, "w"); pipe.write("begun"); pipe.flush()
print(flush=True)
signal.pause()
"""
    worker = f"""
import os, signal, subprocess, sys
environment = {{**os.environ, {trial.WORKER!r}: str(os.getpid())}}
run = subprocess.Popen([sys.executable, "-S", "-c", {run!r}], start_new_session=True, env=environment, stdout=1)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-S", "-c", worker], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert alive.read() == "begun"
