"""The harness that kills runs and exports at random instants counts what comes back, and what does not."""

import time
from pathlib import Path
from random import Random

import lightning as L
import pytest
import torch

from benchmarks.kills import exports, runs
from lightning_compress.deploy.export import FORMATS
from tests.support.cases import CASES, Case
from tests.support.promises import nothing
from tests.support.runs import resumes

STEPS = 36
resumes_in_its_folder = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


@resumes
@resumes_in_its_folder
def test_killed_runs_end_in_the_bits_of_the_uninterrupted_one():
    tally = runs.killed(CASES["pruning and sharing"], 3, Random(0))
    assert (tally.kills, tally.identical, tally.differing) == (3, 3, 0)


class Forgetful(L.Callback):
    """Moves weights by the number of batches of this process, which no checkpoint holds."""

    def __init__(self):
        self.batches = 0

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, *_):
        self.batches += 1
        pl_module.net[11].bias += 1e-3 * self.batches


@resumes
@resumes_in_its_folder
def test_a_state_that_no_checkpoint_holds_is_found():
    tally = runs.killed(Case(lambda: [Forgetful()], nothing), 2, Random(0))
    assert tally.differing == sum(0 < step < STEPS for step in tally.steps)
    assert tally.identical + tally.differing == tally.kills == 2


def test_a_torn_checkpoint_is_passed_over(tmp_path):
    before, torn = tmp_path / "step=1.ckpt", tmp_path / "last.ckpt"
    assert runs.newest(tmp_path) == (None, 0)
    torch.save({"state_dict": torch.ones(100)}, before)
    time.sleep(0.01)  # later by the clock of the file system
    torn.write_bytes(before.read_bytes()[:-100])
    assert runs.newest(tmp_path) == (before, 1)
    before.write_bytes(b"")
    assert runs.newest(tmp_path) == (None, 2)


@pytest.mark.parametrize("title", ["`.lcz`", "`.safetensors`", "folder for transformers"])
def test_killed_exports_leave_the_earlier_file_or_the_new_one(title):
    kind = next(kind for kind in exports.KINDS if kind.title == title)
    tally = exports.killed(kind, 3, Random(0))
    assert (tally.kills, tally.earlier + tally.new, tally.lost, tally.beside) == (3, 3, 0, 0)
    assert (tally.left, tally.temporary) == (0, 0)


def test_every_format_is_killed():
    titles = [kind.title.strip("`") for kind in exports.KINDS]
    assert set(FORMATS) <= set(titles)


def test_files_that_are_written_in_place_are_counted_as_lost():
    def write(number, folder, mark):
        with (folder / "a.txt").open("w") as file:
            (folder / "a.txt.part").touch()
            drafts = len(list(folder.glob(".*")))
            if folder.name == "killed":
                (folder / f".{drafts}").touch()
            mark()
            time.sleep(600 if folder.name == "killed" and drafts < 2 else 0.01)  # the kill comes in the middle
            file.write(str(number))
        (folder / "a.txt.part").unlink()
        mark()

    tally = exports.killed(exports.Kind("in place", write, {"a.txt": Path.read_text}), 2, Random(0))
    assert (tally.kills, tally.earlier, tally.new, tally.lost, tally.beside) == (2, 0, 0, 2, 2)
    assert (tally.hidden, tally.left) == (2, 3)  # the next export adds one


def test_models_that_cannot_be_told_apart_end_the_harness():
    def write(number, folder, mark):
        mark()
        mark()

    with pytest.raises(AssertionError, match=r"need files that differ between two models, got \['a.txt'\]"):
        exports.killed(exports.Kind("nothing", write, {"a.txt": Path.read_text}), 1, Random(0))
