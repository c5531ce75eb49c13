"""Every weight callback keeps every promise.

A new callback joins by one line in ``CASES``: what to put in the Trainer, and what must hold of the weights after fit.
"""

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from torch.utils.data import DataLoader, TensorDataset

from lightning_compress import NM, Block, PruningCallback
from lightning_compress.carried import attach_structure
from lightning_compress.channels import ChannelPruningCallback
from lightning_compress.low_rank import LowRankCallback
from lightning_compress.low_rank.records import LOW_RANK
from lightning_compress.pruning import criteria
from lightning_compress.quantization import BinarizationCallback, QATCallback, observers, scales
from lightning_compress.quantization.records import QUANTIZATION
from lightning_compress.quantization.weights import grids_of
from lightning_compress.schedules import Constant, Cubic, Linear
from lightning_compress.sharing import WeightSharingCallback, gradients, initial_centers
from tests.support.distributed import run_distributed
from tests.support.runs import Randomness, kill, resumes, same, trainer
from tests.support.toys import Batches, Digits, Manual, build, digits, fit, held_out

ROOT = Path(__file__).parents[1]
STEM = ("net.0",)
RAMP = Linear(0.1, 0.6)  # of 36 steps: begins at 4, done at 22


def weights(module):
    return {name: p.detach() for name, p in module.named_parameters() if p.ndim > 1}


def sparsity(asked, *skip):
    def check(module):
        chosen = [w for name, w in weights(module).items() if name not in skip]
        total = sum(w.numel() for w in chosen)
        assert abs(sum(int((w == 0).sum()) for w in chosen) - asked * total) <= 1

    return check


def two_of_four(module):
    for name, weight in weights(module).items():
        if name != "net.0.weight":
            assert ((weight.movedim(1, -1).reshape(-1, 4) != 0).sum(1) == 2).all()


def tiles(module):
    for name, weight in weights(module).items():
        if name != "net.0.weight":
            kept = (weight.flatten(1) != 0).reshape(weight.shape[0] // 2, 2, -1, 4).sum((1, 3))
            assert set(kept.unique().tolist()) <= {0, 8}


def values(most):
    def check(module):
        assert all(len(weight.unique()) <= most for weight in weights(module).values())

    return check


def both(*checks):
    def check(module):
        for one in checks:
            one(module)

    return check


def half_the_macs(module):
    positions = {"net.0.weight": 64, "net.3.weight": 16, "net.9.weight": 1, "net.11.weight": 1}
    dense = sum(positions[name] * w.numel() for name, w in weights(module).items())
    assert sum(positions[name] * int((w != 0).sum()) for name, w in weights(module).items()) <= dense / 2
    empty = [(w.flatten(1) == 0).all(1) for w in weights(module).values()]
    assert sum(int(rows.sum()) for rows in empty) >= 8


def on_grids(module):
    grids = grids_of(module)
    assert grids
    for name, grid in grids.items():
        weight = module.get_parameter(name).detach()
        assert torch.equal(grid.project(weight), weight)


def at_most_two_of_four_on_grids(module):
    on_grids(module)  # small weights are rounded to zero as well
    for name, weight in weights(module).items():
        assert name == "net.0.weight" or ((weight.movedim(1, -1).reshape(-1, 4) != 0).sum(1) <= 2).all()


def binary(module):
    assert all((row.abs() == row.abs()[0]).all() for w in weights(module).values() for row in w.flatten(1))


def low_rank(module):
    """At most half of the parameters of all weights, of the factors of those that are split or have a low rank."""
    values = {name: torch.linalg.svdvals(w.flatten(1).double()) for name, w in weights(module).items()}
    ranks = {name: int((s > 1e-5 * s[0]).sum()) for name, s in values.items()}
    sizes = {name: w.flatten(1).shape for name, w in weights(module).items()}
    kept = sum(min(sizes[name].numel(), rank * sum(sizes[name])) for name, rank in ranks.items())
    assert kept <= (8 * 9 + 16 * 72 + 32 * 64 + 10 * 32) / 2


@dataclass(frozen=True)
class Case:
    callbacks: Callable[[], list[L.Callback]]
    check: Callable[[L.LightningModule], None]
    plain: bool = True  # a model without quantized activations needs no more than its weights


CASES = {
    "pruning": Case(lambda: [PruningCallback(0.9, schedule=RAMP, every_n_steps=3)], sparsity(0.9)),
    "pruning by taylor in layers": Case(
        lambda: [PruningCallback(0.8, criterion=criteria.taylor, scope="layer", schedule=RAMP, every_n_steps=3)],
        sparsity(0.8),
    ),
    "pruning by wanda": Case(
        lambda: [PruningCallback(0.8, criterion=criteria.wanda, schedule=RAMP, every_n_steps=3)], sparsity(0.8)
    ),
    "pruning with regrowth": Case(
        lambda: [PruningCallback(0.9, schedule=RAMP, every_n_steps=3, regrow=True)], sparsity(0.9)
    ),
    "pruning at once": Case(lambda: [PruningCallback(0.9, schedule=Constant(), gradient_scale=2.0)], sparsity(0.9)),
    "2:4": Case(lambda: [PruningCallback(pattern=NM(2, 4), schedule=RAMP, exclude=STEM)], two_of_four),
    "tiles": Case(lambda: [PruningCallback(0.8, pattern=Block(2, 4), schedule=RAMP, exclude=STEM)], tiles),
    "two rules": Case(
        lambda: [
            PruningCallback(0.5, schedule=RAMP, include=("net.0", "net.3")),
            PruningCallback(0.9, schedule=Cubic(0.2, 0.7), include=("net.9", "net.11")),
        ],
        sparsity(0.9, "net.0.weight", "net.3.weight"),
    ),
    "sharing": Case(lambda: [WeightSharingCallback(8, schedule=RAMP, every_n_steps=3)], values(8)),
    "sharing at once": Case(
        lambda: [
            WeightSharingCallback(8, schedule=Constant(), init=initial_centers.plus_plus, gradient=gradients.summed)
        ],
        values(8),
    ),
    "pruning and sharing": Case(
        lambda: [
            WeightSharingCallback(8, schedule=Linear(0.1, 0.5), every_n_steps=4),
            PruningCallback(0.9, schedule=RAMP, every_n_steps=3),
        ],
        both(sparsity(0.9), values(8)),
    ),
    "regrowth and sharing": Case(
        lambda: [
            PruningCallback(0.9, schedule=Linear(0.1, 0.5), every_n_steps=2, regrow=True),
            WeightSharingCallback(8, schedule=RAMP, every_n_steps=5),
        ],
        both(sparsity(0.9), values(8)),
    ),
    "channels": Case(
        lambda: [ChannelPruningCallback(0.5, round_to=4, schedule=RAMP, every_n_steps=3, remove=False)],
        half_the_macs,
    ),
    "8 bits": Case(lambda: [QATCallback(every_n_steps=3)], on_grids, plain=False),
    "4 bits of learned ranges": Case(
        lambda: [QATCallback(4, activation_bits=4, observer=observers.mse, range_lr=0.02, every_n_steps=2)],
        on_grids,
        plain=False,
    ),
    "4-bit weights": Case(
        lambda: [QATCallback(4, activation_bits=None, scale=scales.mse, schedule=RAMP, every_n_steps=3)], on_grids
    ),
    "low rank": Case(lambda: [LowRankCallback(schedule=RAMP, every_n_steps=3)], low_rank, plain=False),
    "low rank, layers left whole": Case(
        lambda: [LowRankCallback(split=False, schedule=RAMP, every_n_steps=3)], low_rank
    ),
    "binary weights": Case(lambda: [BinarizationCallback(every_n_steps=3)], binary),
    "8 bits of 2:4": Case(
        lambda: [QATCallback(every_n_steps=3), PruningCallback(pattern=NM(2, 4), schedule=RAMP, exclude=STEM)],
        at_most_two_of_four_on_grids,
        plain=False,
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def checkpoints(path, **options):
    return ModelCheckpoint(path, filename="{step}", save_top_k=-1, **({"every_n_train_steps": 5} | options))


def loaded(path):
    """The plain module; of what no plain load can carry only the activation quantizers change what it computes."""
    checkpoint = torch.load(path, weights_only=True)
    module = build()
    attach_structure(module, QUANTIZATION, checkpoint)
    attach_structure(module, LOW_RANK, checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    return module


# What was asked holds exactly, whatever else is in the Trainer.


@every_case
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 4},
        {"precision": "bf16-mixed"},
        {"gradient_clip_val": 0.5},
        {"max_steps": 20},
        {"fast_dev_run": 1},
    ],
    ids=str,
)
def test_the_asked_compression_holds_after_fit(case, options):
    module = build()
    fit(module, *case.callbacks(), **options)
    case.check(module)


@every_case
def test_it_holds_under_manual_optimization(case):
    module = build(kind=Manual)
    fit(module, *case.callbacks())
    case.check(module)


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
@every_case
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "averaging",
    [lambda: EMAWeightAveraging(decay=0.9), lambda: StochasticWeightAveraging(1e-3, 0.7, annealing_epochs=1)],
    ids=["EMA", "SWA"],
)
def test_it_holds_with_averaged_weights(case, averaging, first):
    module = build()
    callbacks = case.callbacks()
    callbacks.insert(0 if first else len(callbacks), averaging())
    fit(module, *callbacks)
    case.check(module)


# Kill and resume.


@resumes
@every_case
def test_resumed_is_bit_identical_to_uninterrupted(case, tmp_path):
    module = build()
    fit(module, *case.callbacks(), Randomness(), checkpoints(tmp_path))
    saved = sorted(tmp_path.glob("*.ckpt"))
    assert len(saved) == 7
    for path in saved:
        resumed = build()
        fit(resumed, *case.callbacks(), Randomness(), ckpt_path=path)
        assert same(resumed, module), path.name


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
def test_a_finished_run_can_be_resumed_and_trained_on(case, tmp_path):
    module = build()
    fit(module, *case.callbacks()).save_checkpoint(tmp_path / "end.ckpt")
    resumed, callbacks = build(), case.callbacks()
    fit(resumed, *callbacks, ckpt_path=tmp_path / "end.ckpt")
    assert same(resumed, module)
    assert all(callback.strength == 1.0 for callback in callbacks)
    fit(resumed, *case.callbacks(), ckpt_path=tmp_path / "end.ckpt", max_epochs=4)
    case.check(resumed)
    assert not same(resumed, module)


@every_case
def test_an_exception_leaves_compressed_weights_and_can_be_resumed(case, tmp_path):
    class Break(L.Callback):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            if trainer.global_step == 30:
                raise OSError("the disk is full")

    module = build()
    with pytest.raises(OSError, match="the disk is full"):
        fit(module, *case.callbacks(), Break())
    case.check(module)
    assert not any(optimizer._optimizer_step_post_hooks for optimizer in [module.optimizers().optimizer])


@every_case
def test_fit_twice(case):
    module, callbacks = build(), case.callbacks()
    fit(module, *callbacks)
    again = build()
    fit(again, *callbacks)
    assert same(module, again)
    fit(again, *callbacks)  # and on from compressed weights
    case.check(again)


@every_case
def test_the_steps_of_a_tuner_are_taken_back(case, tmp_path):
    images, labels = digits()
    batches = DataLoader(TensorDataset(images[:384], labels[:384]), batch_size=32)
    modules = build(), build()
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
        for weights_only in (False, True) if case.plain else ():
            folder = tmp_path / f"{name}-{weights_only}"
            saving = checkpoints(folder, every_n_train_steps=None, every_n_epochs=1, save_weights_only=weights_only)
            seen = []

            class Log(L.Callback):
                def on_validation_end(self, trainer, pl_module, seen=seen):
                    seen.append(trainer.callback_metrics["val_loss"].item())

            fit(build(), Log(), *case.callbacks(), saving)
            paths += [str(folder / f"step={step}.ckpt") for step in (12, 24, 36)]
            expected += seen
    command = [sys.executable, "-W", "ignore", "-c", PLAIN, *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    printed = [float(line) for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert printed == pytest.approx(expected, rel=1e-6)


@every_case
def test_state_is_tensors_and_primitives(case, tmp_path):
    run = fit(build(), *case.callbacks(), max_steps=20)
    run.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)


# "Best" is never an early, dense model.


@every_case
def test_monitors_wait_for_the_compression(case, tmp_path):
    best = ModelCheckpoint(tmp_path, "{step}", monitor="train_loss", mode="max", save_top_k=1, save_last=True)
    stopping = EarlyStopping("train_loss", mode="max", patience=1)  # the loss falls: it would stop at once
    module = build()
    run = fit(module, best, stopping, *case.callbacks(), max_epochs=6)
    case.check(module)
    assert run.global_step > 12
    case.check(loaded(best.best_model_path))
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
    CASES["pruning"].check(loaded(best.best_model_path))
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
@every_case
@pytest.mark.parametrize("first", [True, False])
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
    module = build()
    run = fit(module, *callbacks(), Log(), saving)
    case.check(module)
    for step, logged in zip((12, 24, 36), seen, strict=True):
        path = tmp_path / f"step={step}.ckpt"
        averaged = loaded(path)
        (metrics,) = trainer().test(averaged, held_out(), verbose=False)
        assert metrics["val_loss"] == pytest.approx(logged, rel=1e-6)
    case.check(averaged)
    resumed = build()
    fit(resumed, *callbacks(), ckpt_path=tmp_path / "step=24.ckpt")
    assert same(resumed, module)
    (metrics,) = run.validate(module, held_out(), verbose=False)
    assert metrics["val_loss"] == pytest.approx(logged, rel=1e-6)


# Several processes.


def _ranks(name):
    torch.use_deterministic_algorithms(True)
    module = build()
    L.seed_everything(0, verbose=False)
    run = trainer(*CASES[name].callbacks(), strategy="ddp", devices=2)
    run.fit(module, Batches(seed=run.global_rank + 1), held_out())
    CASES[name].check(module)
    return {
        key: value.numpy() for key, value in module.state_dict().items() if not key.startswith(("net.1.", "net.4."))
    }


@pytest.mark.parametrize("name", CASES)
def test_every_rank_has_the_same_weights(name):
    first, second = run_distributed(_ranks, name)
    for key in first:
        assert (first[key] == second[key]).all(), key


# Callbacks are plain values.


@every_case
def test_pickle_copy_and_repr(case):
    for callback in case.callbacks():
        for twin in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
            assert twin.state_key == callback.state_key
            assert twin.schedule == callback.schedule


@every_case
def test_validation_alone_changes_nothing(case):
    module = build()
    before = copy.deepcopy(module)
    trainer(*case.callbacks()).validate(module, held_out(), verbose=False)
    assert same(module, before)


def test_the_toy_learns():
    run = fit(build(), max_epochs=10)
    assert run.callback_metrics["val_acc"] > 0.7
    assert isinstance(run.lightning_module, Digits)
