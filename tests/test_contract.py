"""Every callback keeps every promise.

A new callback joins by a line in ``CASES`` of ``tests/support/cases.py``: callbacks of a Trainer, the promise about the
weights after ``fit``, and capabilities. A promise is tested on every case that has the capability it needs.
"""

import copy
import importlib
import math
import os
import pickle
import pkgutil
import re
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import lightning as L
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from torch.utils.data import DataLoader, TensorDataset

import lightning_compress
from lightning_compress import PruningCallback, export, load_compressed
from lightning_compress.archive import read_archive
from lightning_compress.schedules import Linear
from lightning_compress.timing import Latency
from lightning_compress.training import WeightCompression
from tests.support.cases import CASES, cases, cases_in_turn
from tests.support.distributed import run_distributed
from tests.support.promises import shipped
from tests.support.runs import Randomness, Save, kill, resumes, same, trainer, uninterrupted
from tests.support.shards import differing as differing_arrays
from tests.support.shards import fsdp2, gathered, sharded
from tests.support.toys import Batches, Digits, Manual, build, digits, fit, held_out
from tests.support.twins import twin

ROOT = Path(__file__).parents[1]
PARTS = "net.0", "net.3", "net.9", "net.11", "net"
every_case = cases()


@pytest.fixture(autouse=True)
def instant(monkeypatch):
    """Timing and drawing take no time: a report measures latency and draws pictures, which have their own tests."""
    monkeypatch.setattr("lightning_compress.report.views.outputs.drawable", lambda comparison: {})
    monkeypatch.setattr(
        "lightning_compress.report.measures.bench.measure_latencies",
        lambda modules, example: [Latency(0.2, 0.1, 2.0, "cpu") for _ in modules],
    )


def test_every_public_callback_has_a_case():
    public = [getattr(lightning_compress, name) for name in lightning_compress.__all__]
    callbacks = {one for one in public if isinstance(one, type) and issubclass(one, L.Callback)}
    rooms = pkgutil.iter_modules(lightning_compress.__path__)
    modules = [importlib.import_module(f"lightning_compress.{room.name}") for room in rooms if room.ispkg]
    names = [getattr(module, name) for module in modules for name in getattr(module, "__all__", ())]
    methods = {one for one in names if isinstance(one, type) and issubclass(one, WeightCompression)}
    covered = {type(callback) for case in CASES.values() for callback in case.callbacks()}
    assert callbacks | methods - {WeightCompression} <= covered


def checkpoints(path, **options):
    return ModelCheckpoint(path, filename="{step}", save_top_k=-1, **({"every_n_train_steps": 5} | options))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Case -> the module of a run to its end, which no test may change, and the checkpoint after it."""

    @cache
    def run(case):
        module, path = build(kind=case.kind), tmp_path_factory.mktemp("finished") / "end.ckpt"
        fit(module, *case.callbacks()).save_checkpoint(path)
        return module, path

    return run


def loaded(kind, path):
    """The module with all that a checkpoint carries."""
    return load_compressed(kind, path)


# What was asked holds exactly, whatever else is in the Trainer.


@every_case
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 4, "precision": "bf16-mixed", "gradient_clip_val": 0.5},
        {"max_steps": 20},
        {"fast_dev_run": 1},
    ],
    ids=str,
)
def test_the_asked_compression_holds_after_fit(case, options):
    module = build(kind=case.kind)
    fit(module, *case.callbacks(), **options)
    case.promise(module)


@every_case
def test_it_holds_under_manual_optimization(case):
    module = build(kind=type("Kind", (Manual, case.kind), {}))
    fit(module, *case.callbacks())
    case.promise(module)


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
@cases_in_turn("first", [True, False])
def test_it_holds_with_averaged_weights(case, first):
    module = build(kind=case.kind)
    callbacks = case.callbacks()
    callbacks.insert(0 if first else len(callbacks), StochasticWeightAveraging(1e-3, 0.7, annealing_epochs=1))
    fit(module, *callbacks)
    case.promise(module)


# Kill and resume.


@resumes
@cases_in_turn("steps", [(5, 18, 35), (12, 25)])
def test_resumed_is_bit_identical_to_uninterrupted(case, steps, tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = build(kind=case.kind)
        fit(module, *case.callbacks(), Randomness(), *callbacks, ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, steps)


class Promised(L.Callback):
    """Counts the promise from outside after the first epoch of a run, and stops the run."""

    def __init__(self, promise):
        self.promise = promise

    def on_validation_epoch_end(self, trainer, pl_module):
        self.promise(pl_module)
        trainer.should_stop = True


@resumes
@every_case
def test_a_run_that_is_resumed_for_more_epochs_keeps_what_it_has_reached(case, finished):
    """The progress of the longer run is a smaller fraction, at which the ramp has not ended."""
    _, path = finished(case)
    fit(build(kind=case.kind), *case.callbacks(), Promised(case.promise), ckpt_path=path, max_epochs=12)


KILLED = """
import sys
from lightning_compress import PruningCallback
from lightning_compress.schedules import Linear
from tests.support.runs import Kill, Randomness, Save
from tests.support.toys import build, fit

pruning = PruningCallback(0.9, schedule=Linear(0.1, 0.6), every_n_steps=3)
fit(build(), pruning, Randomness(), Kill(17), Save(sys.argv[1], [15]))
"""


@resumes
def test_resume_after_sigkill(tmp_path):
    kill(KILLED, tmp_path)
    case = CASES["pruning"]
    resumed, module = build(), build()
    fit(resumed, *case.callbacks(), Randomness(), ckpt_path=tmp_path / "step=15.ckpt")
    fit(module, *case.callbacks(), Randomness())
    assert same(resumed, module)


@resumes
@every_case
def test_a_finished_run_can_be_resumed_and_trained_on(case, finished):
    module, path = finished(case)
    resumed, callbacks = build(kind=case.kind), case.callbacks()
    fit(resumed, *callbacks, ckpt_path=path)
    assert same(resumed, module)
    assert all(getattr(callback, "strength", 1.0) == 1.0 for callback in callbacks)
    fit(resumed, *case.callbacks(), ckpt_path=path, max_epochs=4)
    case.promise(resumed)
    assert not same(resumed, module)


@every_case
def test_an_exception_leaves_compressed_weights_and_can_be_resumed(case, tmp_path):
    class Break(L.Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            if trainer.global_step == 30:
                raise OSError("the disk is full")

    module = build(kind=case.kind)
    with pytest.raises(OSError, match="the disk is full"):
        fit(module, *case.callbacks(), Break())
    case.promise(module)
    assert not any(optimizer._optimizer_step_post_hooks for optimizer in [module.optimizers().optimizer])


@cases(lambda case: any(isinstance(callback, WeightCompression) for callback in case.callbacks()))
def test_a_training_that_diverges_is_no_success(case):
    """Plain training would end with weights that are not numbers, and say nothing."""

    class Diverging(case.kind):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (math.nan if self.trainer.global_step > 14 else 1.0)

    with pytest.raises(
        (RuntimeError, ValueError), match="the training has diverged|need a teacher that answers with finite numbers"
    ):
        fit(build(kind=Diverging), *case.callbacks(), limit_val_batches=0)


@every_case
def test_fit_twice(case):
    module, callbacks = build(kind=case.kind), case.callbacks()
    fit(module, *callbacks)
    again = build(kind=case.kind)
    fit(again, *callbacks)
    assert same(module, again)
    fit(again, *callbacks)  # and on from compressed weights
    case.promise(again)


@every_case
def test_the_steps_of_a_tuner_are_taken_back(case, tmp_path):
    images, labels = digits()
    batches = DataLoader(TensorDataset(images[:384], labels[:384]), batch_size=32)
    modules = build(kind=case.kind), build(kind=case.kind)
    for module, tuners in zip(
        modules, ([], [LearningRateFinder(num_training_steps=5, update_attr=False)]), strict=True
    ):
        module.net[8].p = 0.0
        trainer(*tuners, *case.callbacks(), default_root_dir=tmp_path).fit(module, batches, held_out())
    assert same(*modules)


# Checkpoints are those of an ordinary model.

PLAIN = """
import sys
import torch
from tests.support.runs import trainer
from tests.support.toys import Digits, held_out

for path in sys.argv[1:]:
    module = Digits()
    module.load_state_dict(torch.load(path, weights_only=True)["state_dict"], strict=True)
    (metrics,) = trainer().test(module, held_out(), verbose=False)
    print(metrics["val_loss"])
assert not any(name.startswith("lightning_compress") for name in sys.modules)
"""


def test_checkpoints_load_without_this_package_and_give_the_logged_metric(tmp_path):
    expected, paths = [], []
    for name, case in CASES.items():
        if case.plain and case.keeps_shapes and case.kind is Digits:
            steps, seen = (12, 24, 36), []
            folders = whole, weights = tmp_path / name / "whole", tmp_path / name / "weights"
            saving = (
                checkpoints(whole, every_n_train_steps=None, every_n_epochs=1),
                Save(weights, steps, weights_only=True),
            )

            class Log(L.Callback):
                def on_validation_end(self, trainer, pl_module, seen=seen):
                    seen.append(trainer.callback_metrics["val_loss"].item())

            fit(build(), Log(), *case.callbacks(), *saving)
            paths += [str(folder / f"step={step}.ckpt") for folder in folders for step in steps]
            expected += seen * 2
    command = [sys.executable, "-W", "ignore", "-c", PLAIN, *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    printed = [float(line) for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert printed == pytest.approx(expected, rel=1e-6)


@every_case
def test_state_is_tensors_and_primitives(case, tmp_path):
    run = fit(build(kind=case.kind), *case.callbacks(), max_steps=20)
    run.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)


# "Best" is never an early, dense model.


@every_case
def test_monitors_wait_for_the_compression(case, tmp_path):
    best = ModelCheckpoint(tmp_path, "{step}", monitor="train_loss", mode="max", save_top_k=1, save_last=True)
    stopping = EarlyStopping("train_loss", mode="max", patience=1)  # the loss falls: it would stop at once
    module = build(kind=case.kind)
    run = fit(module, best, stopping, *case.callbacks(), max_epochs=6)
    case.promise(module)
    assert run.global_step > 12
    case.promise(loaded(case.kind, best.best_model_path))
    assert "check_monitor_top_k" not in vars(best)
    assert "on_validation_end" not in vars(stopping)


@resumes
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_monitors_forget_the_dense_run_that_is_resumed(tmp_path):
    class Scored(Digits):
        """The dense epochs are the best."""

        def on_train_epoch_end(self):
            self.log("score", -float(self.current_epoch))

    def monitors():
        best = ModelCheckpoint(tmp_path, "{step}", monitor="score", mode="max", save_last=True)
        return best, EarlyStopping("score", mode="max", patience=2, check_on_train_epoch_end=True)

    fit(build(kind=Scored), *monitors(), max_epochs=2)
    best, stopping = monitors()
    module = build(kind=Scored)
    path, pruning = tmp_path / "last.ckpt", PruningCallback(0.9, schedule=Linear(0.4, 0.6))
    fit(module, best, stopping, pruning, max_epochs=6, ckpt_path=path)
    CASES["pruning"].promise(loaded(Digits, best.best_model_path))
    assert best.best_model_path == str(tmp_path / "step=48.ckpt")
    assert stopping.stopped_epoch == 5  # two epochs after the first that counts


def test_the_last_checkpoint_is_kept_while_the_best_is_not_yet_picked(tmp_path):
    best = ModelCheckpoint(tmp_path, "{step}", monitor="val_acc", mode="max", save_last=True)
    fit(build(), best, PruningCallback(0.9, schedule=Linear(0.5, 1.0)), max_epochs=1)
    assert best.best_model_path  # the only epoch ended at full strength
    seen = []

    class Look(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            seen.append((Path(best.last_model_path).is_file(), best.best_model_path))

    best = ModelCheckpoint(tmp_path / "two", "{step}", monitor="val_acc", mode="max", save_last=True)
    fit(build(), best, Look(), PruningCallback(0.9, schedule=Linear(0.5, 1.0)))
    assert seen[1:] == [(True, ""), (True, "")]


# The average of compressed weights is compressed wherever it is seen.


@resumes
@cases_in_turn("first", [False, True])
def test_averaged_checkpoints_are_compressed_and_resume(case, first, tmp_path):
    def callbacks():
        ours = case.callbacks()
        ours.insert(0 if first else len(ours), EMAWeightAveraging(decay=0.9))
        return [*ours, Randomness()]

    seen = []

    class Log(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            seen.append(trainer.callback_metrics["val_loss"].item())

    saving = checkpoints(tmp_path, every_n_train_steps=None, every_n_epochs=1)
    module = build(kind=case.kind)
    run = fit(module, *callbacks(), Log(), saving)
    case.promise(module)
    for step, logged in zip((12, 24, 36), seen, strict=True):
        path = tmp_path / f"step={step}.ckpt"
        averaged = loaded(case.kind, path)
        (metrics,) = trainer().test(averaged, held_out(), verbose=False)
        assert metrics["val_loss"] == pytest.approx(logged, rel=1e-6)
    case.promise(averaged)
    resumed = build(kind=case.kind)
    fit(resumed, *callbacks(), ckpt_path=tmp_path / "step=24.ckpt")
    assert same(resumed, module)
    (metrics,) = run.validate(module, held_out(), verbose=False)
    assert metrics["val_loss"] == pytest.approx(logged, rel=1e-6)


# The same holds for pytorch_lightning.


@resumes
@every_case
def test_every_promise_holds_in_the_other_lightning(case, tmp_path):
    kind, others = twin(case.kind), pytorch_lightning.callbacks

    def run(*more, ckpt_path=None):
        module, averaging = build(kind=kind), others.EMAWeightAveraging(decay=0.9)
        callbacks = [*case.callbacks(), averaging, twin(Randomness)(), *more]
        fit(module, *callbacks, ckpt_path=ckpt_path, kind=pytorch_lightning.Trainer)
        return module

    # The loss falls: the best of all models would be the dense one.
    best = others.ModelCheckpoint(tmp_path / "best", monitor="train_loss", mode="max")
    every = others.ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_epochs=1)
    module = run(best, every)
    case.promise(module)
    case.promise(loaded(kind, best.best_model_path))
    assert same(run(ckpt_path=tmp_path / "step=24.ckpt"), module)


# Several processes.


def _ranks(case, folder):
    torch.use_deterministic_algorithms(True)
    is_sharded = folder is not None
    module = build(kind=sharded(case.kind, *PARTS) if is_sharded else case.kind)
    L.seed_everything(0, verbose=False)
    run = trainer(*case.callbacks(), **(fsdp2() if is_sharded else {"strategy": "ddp", "devices": 2}))
    run.fit(module, Batches(count=6, seed=run.global_rank + 1), held_out())
    if is_sharded:
        run.save_checkpoint(folder / "end.ckpt")
    else:
        case.promise(module)
    return gathered(module)


@every_case
def test_every_rank_has_the_same_weights(case):
    first, second = run_distributed(_ranks, case, None)
    assert differing_arrays(first, second) == []


@cases(lambda case: not case.fsdp2)
def test_shards_are_compressed_as_the_whole(case, tmp_path):
    first, second = run_distributed(_ranks, case, tmp_path)
    assert differing_arrays(first, second) == []
    case.promise(loaded(case.kind, tmp_path / "end.ckpt"))


def _said(case):
    """The refusal of one step under FSDP2, and all warnings."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run = trainer(*case.callbacks(), max_steps=1, **fsdp2())
        try:
            run.fit(build(kind=sharded(case.kind, *PARTS)), Batches())
        except ValueError as error:
            return [str(error)], run.global_step
    return [str(warning.message) for warning in warned], run.global_step


@cases(lambda case: case.fsdp2)
def test_a_promise_that_does_not_hold_of_shards_is_refused_or_named_before_training(case):
    (said, steps), _ = run_distributed(_said, case)
    assert any(re.search(case.fsdp2, text) for text in said), said
    assert steps == (0 if case.fsdp2.startswith("need") else 1)


@pytest.mark.filterwarnings("ignore:.*strategies that spawn their processes return no smaller model")
@cases(lambda case: not case.plain)
def test_processes_bring_the_module_home(case, tmp_path):
    """A state dict returns by itself; the module in the main process is that of the last checkpoint."""
    module = build(kind=case.kind)
    fit(module, *case.callbacks(), Save(tmp_path, [36]), strategy="ddp_fork", devices=2)
    assert same(shipped(module), loaded(case.kind, tmp_path / "step=36.ckpt"))
    export(module, tmp_path / "m.lcz")
    assert same(shipped(module), load_compressed(case.kind, tmp_path / "m.lcz"))


# Callbacks are plain values.


@every_case
def test_pickle_copy_and_repr(case):
    new, used = case.callbacks(), case.callbacks()
    run = fit(build(kind=case.kind), *used, max_epochs=1)
    for callback in (*new, *used):
        for copied in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
            assert repr(copied) == repr(callback)
            assert callback in new or copied.state_key == callback.state_key
    assert len(pickle.loads(pickle.dumps(run)).callbacks) == len(run.callbacks)


@every_case
def test_validation_alone_changes_nothing(case):
    module = build(kind=case.kind)
    before = copy.deepcopy(module)
    trainer(*case.callbacks()).validate(module, held_out(), verbose=False)
    assert same(module, before)


def test_the_toy_learns():
    run = fit(build(), max_epochs=10)
    assert run.callback_metrics["val_acc"] > 0.7
    assert isinstance(run.lightning_module, Digits)


# The archive is the model that was validated.


@every_case
def test_the_archive_is_the_module(case, tmp_path, finished):
    module, _ = finished(case)
    path = export(module, tmp_path / "m.lcz")
    found, module = load_compressed(case.kind, path), shipped(module)
    assert same(found, module)
    assert read_archive(path).complete == case.plain  # if not, load_archive warns
    images = digits()[0][1400:]
    module.eval(), found.eval()
    with torch.no_grad():
        assert torch.equal(found(images), module(images))
