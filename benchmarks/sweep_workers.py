"""Two workers of one sweep, of which one is killed in the middle of a trial: SQLite and PostgreSQL.

The digits example with all methods, 10 epochs a trial. The second worker is killed by SIGKILL in its second trial, and
the first one takes the trial up again. ``python -m benchmarks.sweep_workers`` runs on SQLite; with ``postgresql`` as a
word, on a server of its own, by the programs that Debian installs (``apt-get install postgresql``; ``pip install
'psycopg[binary]'``).
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRIALS, PORT = 12, 5439
RANGES = """
trainer:
  max_epochs: 10
  enable_progress_bar: false
sweep:
  trainer.callbacks.PruningCallback.sparsity: {low: 0.5, high: 0.99}
  trainer.callbacks.WeightSharingCallback.clusters: {choices: [4, 8, 16, 32]}
  model.lr: {low: 1.0e-3, high: 1.0e-2, log: true}
"""


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A server of its own, as a user without rights if this process has all of them; its address."""
    (programs,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    if os.getuid() == 0:
        folder.chmod(0o755)
        shutil.chown(folder, "postgres")

    def run(*words: str) -> None:
        subprocess.run(
            [str(programs / words[0]), *words[1:]],
            check=True,
            stdout=subprocess.DEVNULL,
            user=user if os.getuid() == 0 else None,
            cwd=folder,
        )

    run("initdb", "-D", "data", "-A", "trust", "-U", "sweep")
    options = f"-p {PORT} -k {folder}"
    run("pg_ctl", "-D", "data", "-w", "-o", options, "-l", "log", "start")
    try:
        run("createdb", "-h", str(folder), "-p", str(PORT), "-U", "sweep", "sweep")
        yield f"postgresql+psycopg://sweep@localhost:{PORT}/sweep"
    finally:
        run("pg_ctl", "-D", "data", "-w", "-m", "fast", "stop")


def worker(url: str, number: int, folder: Path) -> subprocess.Popen[str]:
    """One worker; its words are in ``worker_N.txt``."""
    command = [sys.executable, "-c", "from lightning_compress.cli import main; main()", "sweep"]
    configs = ["--config", str(ROOT / "examples/digits/combined.yaml"), "--config", str(folder / "ranges.yaml")]
    options = ["--study", url, "--trials", str(TRIALS), "--heartbeat", "5", "--plot", f"front_{number}.png"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / f"worker_{number}.txt").open("w") as told:
        return subprocess.Popen(
            [*command, *configs, *options], cwd=folder, stdout=told, stderr=told, text=True, env=environment
        )


def sweep(url: str, folder: Path) -> None:
    """Start both workers, kill the second in its second trial, and print the words of both."""
    (folder / "ranges.yaml").write_text(RANGES)
    begun = time.monotonic()
    workers = [worker(url, number, folder) for number in (1, 2)]
    killed = folder / "worker_2.txt"
    while "\ntrial" not in f"\n{killed.read_text()}":
        if workers[1].poll() is not None:
            sys.exit(killed.read_text())
        time.sleep(1)
    time.sleep(10)
    workers[1].send_signal(signal.SIGKILL)
    workers[1].wait()
    print(f"worker 2, killed after {time.monotonic() - begun:.0f} s:\n{killed.read_text()}")
    workers[0].wait()
    print(f"worker 1, {time.monotonic() - begun:.0f} s:\n{(folder / 'worker_1.txt').read_text()}")


def main() -> None:
    """Run on the database that the first word names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = folder / "runs"
        runs.mkdir()
        if sys.argv[1:] == ["postgresql"]:
            (folder / "server").mkdir()
            folder.chmod(0o755)
            with postgresql(folder / "server") as url:
                sweep(url, runs)
        else:
            sweep("sqlite:///study.db", runs)


if __name__ == "__main__":
    main()
