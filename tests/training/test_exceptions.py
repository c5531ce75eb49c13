"""Runs that end in an exception or in Ctrl-C: the checkpoints that are written then, and what is left in memory."""

import copy
import gc
import signal
import weakref
from functools import cache
from itertools import product

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from torch import nn
from torch.nn import functional as F

from lightning_compress import (
    BinarizationCallback,
    ChannelPruningCallback,
    CompressionReport,
    LowRankCallback,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
    load_compressed,
)
from lightning_compress.channels import criteria as channel_criteria
from lightning_compress.distillation import DistillationCallback, LeastSquares, Term, losses
from lightning_compress.pruning import criteria
from lightning_compress.schedules import Linear
from tests.support.promises import at_most, binary, half_the_macs, integers, low_rank, sparsity, values
from tests.support.runs import resumes, same, trainer
from tests.support.toys import Digits, build, digits, held_out
from tests.support.toys import fit as fit_on_digits

STEP = 30  # in the third epoch of twelve steps; full strength is reached at 22
RAMP = {"schedule": Linear(0.1, 0.6), "every_n_steps": 3}
METHODS = {
    "pruning": (lambda: PruningCallback(0.9, **RAMP), sparsity(0.9)),
    "regrowth": (lambda: PruningCallback(0.9, regrow=True, **RAMP), sparsity(0.9)),
    "regrowth by taylor": (lambda: PruningCallback(0.9, criterion=criteria.taylor, regrow=True, **RAMP), sparsity(0.9)),
    "regrowth by wanda": (lambda: PruningCallback(0.9, criterion=criteria.wanda, regrow=True, **RAMP), sparsity(0.9)),
    "masked channels": (lambda: ChannelPruningCallback(0.5, round_to=4, remove=False, **RAMP), half_the_macs),
    "channels by taylor": (
        lambda: ChannelPruningCallback(
            0.5, round_to=4, remove=False, criterion=channel_criteria.taylor, schedule=Linear(0.1, 1.0), every_n_steps=3
        ),
        lambda module: None,
    ),
    "low rank": (lambda: LowRankCallback(split=False, **RAMP), low_rank),
    "sharing": (lambda: WeightSharingCallback(8, **RAMP), values(8)),
    "4-bit weights": (lambda: QATCallback(4, activation_bits=None, every_n_steps=3), at_most(16)),
    "8 bits": (lambda: QATCallback(8, freeze_ranges_at=1.0, every_n_steps=3), integers),
    "binary weights": (lambda: BinarizationCallback(every_n_steps=3), binary),
}
PLACES = "training_step", "on_before_optimizer_step", "validation_step"
OTHERS = "on_train_batch_start", "on_after_backward", "step"
some_methods = pytest.mark.parametrize("method", ["pruning", "regrowth by taylor", "sharing", "8 bits"])


class Failing(torch.optim.SGD):
    """Fails before it has changed a weight, for want of memory, say."""

    def step(self, closure=None):
        return super().step(self.preceded(closure))

    def preceded(self, closure):
        def evaluate():
            loss = closure()
            self.fails("step")
            return loss

        return evaluate


class Numbered(Digits):
    """Takes the batch of a step by the number of the step, so that a step that failed is taken again after a resume.

    It has no batch normalization, whose statistics would count such a batch twice, and no dropout.
    """

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.net[1], self.net[4], self.net[8] = nn.Identity(), nn.Identity(), nn.Identity()
        self.example_input_array = torch.zeros(1, 1, 8, 8)
        self.fails = lambda place: None

    def training_step(self, batch, batch_idx):
        self.fails("training_step")
        rows = torch.arange(8) + 8 * self.global_step
        return F.cross_entropy(self(digits()[0][rows]), digits()[1][rows])

    def validation_step(self, batch, batch_idx):
        self.fails("validation_step")
        super().validation_step(batch, batch_idx)

    def configure_optimizers(self):
        optimizer = Failing(self.parameters(), 0.05, momentum=0.9)
        optimizer.fails = lambda place: self.fails(place)
        return optimizer


class Twelve:
    """Twelve batches, of which nothing is read; each epoch begins at the first."""

    def __len__(self):
        return 12

    def __iter__(self):
        return iter(torch.zeros(12, 1))

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def fit(module, *callbacks, ckpt_path=None):
    L.seed_everything(0, verbose=False)
    run = trainer(*callbacks)
    run.fit(module, Twelve(), held_out(), ckpt_path=ckpt_path)
    return run


def saving(folder):
    return ModelCheckpoint(folder, "last", save_on_exception=True, every_n_epochs=100)


class Fail(L.Callback):
    """Raises an error, or what Python raises on Ctrl-C, at one place, once; notes the latents that live then.

    No signal is sent: the process that runs the tests, and those beside it, would be the ones to get it.
    """

    def __init__(self, place, ctrl_c=False):
        self.place, self.ctrl_c, self.latents = place, ctrl_c, []

    def setup(self, trainer, pl_module, stage):
        pl_module.fails = lambda place: self.fail(trainer, place)

    def fail(self, trainer, place):
        if place != self.place or trainer.global_step < STEP:
            return
        self.place = None
        self.latents = latents_of(trainer)
        raise KeyboardInterrupt if self.ctrl_c else OSError("the disk is full")

    def on_train_batch_start(self, trainer, *_):
        self.fail(trainer, "on_train_batch_start")

    def on_after_backward(self, trainer, *_):
        self.fail(trainer, "on_after_backward")

    def on_before_optimizer_step(self, trainer, *_):
        self.fail(trainer, "on_before_optimizer_step")

    def on_validation_batch_start(self, trainer, *_):
        self.fail(trainer, "on_validation_batch_start")


def latents_of(trainer):
    """Weak references to the latents of a run."""
    runs = [callback._run for callback in trainer.callbacks if getattr(callback, "_run", None)]
    held = [latent for run in runs for latent in run._latents._exchanged.values()]
    held += [hidden for run in runs for hidden in run._latents._masked.hidden.values()]
    return [weakref.ref(latent) for latent in held]


def alive(references):
    gc.collect()
    return [tuple(tensor.shape) for reference in references if (tensor := reference()) is not None]


def failed(module, *callbacks, place, ctrl_c=False):
    """Weak references to the latents of a run that failed."""
    fail, handler = Fail(place, ctrl_c), signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit if ctrl_c else OSError):
        fit(module, *callbacks, fail)
    signal.signal(signal.SIGINT, handler)  # Lightning ignores it after the first
    assert fail.place is None
    assert fail.latents
    return fail.latents


@cache
def whole(method, kind=Numbered):
    """The model of the run that is not interrupted."""
    module = build(kind=kind)
    fit(module, METHODS[method][0]())
    return module


class SaveFirst(L.Callback):
    """Writes a checkpoint in ``on_exception``, before the callbacks that follow it in the list."""

    def __init__(self, path):
        self.path = path

    def on_exception(self, trainer, pl_module, exception):
        trainer.save_checkpoint(self.path)


@resumes
@pytest.mark.parametrize(
    ("method", "place"), [*product(METHODS, PLACES), *product(["regrowth by taylor", "sharing", "8 bits"], OTHERS)]
)
def test_a_checkpoint_of_an_exception_resumes_bit_identical(method, place, tmp_path):
    make, promise = METHODS[method]
    module = build(kind=Numbered)
    latents = failed(module, SaveFirst(tmp_path / "first.ckpt"), make(), saving(tmp_path), place=place)
    assert alive(latents) == []
    promise(module)
    for name in ("first", "last"):
        path = tmp_path / f"{name}.ckpt"
        assert same(module, load_compressed(Numbered, path))
        resumed = build(kind=Numbered)
        fit(resumed, make(), ckpt_path=path)
        assert same(whole(method), resumed)


@resumes
@some_methods
def test_ctrl_c_drops_the_latents_and_can_be_resumed(method, tmp_path):
    make, promise = METHODS[method]
    module, resumed = build(kind=Numbered), build(kind=Numbered)
    latents = failed(module, saving(tmp_path), make(), place="training_step", ctrl_c=True)
    assert alive(latents) == []
    promise(module)
    fit(resumed, make(), ckpt_path=tmp_path / "last.ckpt")
    assert same(whole(method), resumed)


@some_methods
def test_the_callbacks_of_a_run_that_failed_train_again(method):
    callback, again = METHODS[method][0](), build(kind=Numbered)
    failed(build(kind=Numbered), callback, place="on_before_optimizer_step")
    fit(again, callback)
    assert same(whole(method), again)


class Raise(L.Callback):
    """Cannot write its checkpoint: the disk is full once more."""

    def on_exception(self, trainer, pl_module, exception):
        raise OSError("the disk is full again")


@some_methods
@pytest.mark.parametrize("first", [True, False])
def test_the_callbacks_of_a_run_whose_end_failed_train_again(method, first):
    """Lightning calls no further hook if ``on_exception`` of a callback raises: the next run ends the one before."""
    callback, fail, again = METHODS[method][0](), Fail("training_step"), build(kind=Numbered)
    callbacks = [Raise(), callback] if first else [callback, Raise()]
    with pytest.raises(OSError, match="the disk is full again"):
        fit(build(kind=Numbered), *callbacks, fail)
    fit(again, callback)
    assert alive(fail.latents) == []
    assert same(whole(method), again)


def test_the_report_of_a_run_that_failed_keeps_no_dense_model(tmp_path):
    models = []

    class Look(L.Callback):
        def on_train_start(self, trainer, pl_module):
            models.extend(
                weakref.ref(one) for one in gc.get_objects() if type(one) is Numbered and one is not pl_module
            )

    gc.collect()
    others = [one for one in gc.get_objects() if type(one) is Numbered]
    report = CompressionReport(tmp_path)
    failed(build(kind=Numbered), PruningCallback(0.9, **RAMP), report, Look(), place="training_step")
    gc.collect()
    assert len(models) == len(others) + 1
    assert sum(model() is not None for model in models) == len(others)


def regressed():
    """Features of another width than the teacher's; the moments of their regressor are a mean over batches."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        wide = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(768, 10))
    term = Term(losses.mse, student_layers="net.0", teacher_layers="0", regressor=LeastSquares())
    return DistillationCallback(wide, losses=[term], alpha=0.5)


@resumes
@pytest.mark.parametrize("place", ["training_step", "on_after_backward", "step", "validation_step"])
@pytest.mark.parametrize("first", [True, False])
def test_the_regressor_of_a_run_that_failed_resumes(first, place, tmp_path):
    whole, resumed = build(kind=Numbered), build(kind=Numbered)
    fit(whole, regressed())
    callback = SaveFirst(tmp_path / "last.ckpt") if first else saving(tmp_path)
    with pytest.raises(OSError, match="the disk is full"):
        fit(build(kind=Numbered), callback, regressed(), Fail(place))
    fit(resumed, regressed(), ckpt_path=tmp_path / "last.ckpt")
    assert same(whole, resumed)


class Momentum(Numbered):
    """A copy of the last layers follows them."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.key = copy.deepcopy(self.net[9:])

    def training_step(self, batch, batch_idx):
        self.fails("training_step")
        with torch.no_grad():
            for name, parameter in self.net[9:].named_parameters():
                self.key.get_parameter(name).lerp_(parameter, 0.05)
        return super().training_step(batch, batch_idx)


@resumes
@pytest.mark.filterwarnings("ignore:.*was called without a model", "ignore:.*there is no last checkpoint")
@pytest.mark.parametrize("place", ["training_step", "validation_step", "on_validation_batch_start"])
def test_a_follower_of_a_run_that_failed_resumes(place, tmp_path):
    make, _ = METHODS["sharing"]
    resumed, module = build(kind=Momentum), build(kind=Momentum)
    failed(module, make(), OnExceptionCheckpoint(tmp_path, "last"), place=place)
    assert len(module.key[0].weight.unique()) <= 8
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert "key.9.weight" in saved["opened_weights"]
    assert len(saved["state_dict"]["key.9.weight"].unique()) <= 8
    fit(resumed, make(), ckpt_path=tmp_path / "last.ckpt")
    assert same(whole("sharing", Momentum), resumed)


class Interrupting(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 12:  # of 36
            raise KeyboardInterrupt


def test_a_run_that_is_ended_by_hand_says_that_the_model_is_not_yet_compressed(caplog):
    with caplog.at_level("INFO"), pytest.raises(SystemExit):
        fit_on_digits(build(), PruningCallback(0.9, schedule=Linear(0.0, 0.9)), Interrupting())
    assert "PruningCallback: the run ended at 33% of its length, before the end of its schedule" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"), pytest.raises(SystemExit):
        fit_on_digits(build(), PruningCallback(0.9, schedule=Linear(0.0, 0.1)), Interrupting())
    assert "the run ended" not in caplog.text
