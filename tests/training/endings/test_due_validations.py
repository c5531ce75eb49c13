"""A run that is resumed from a checkpoint which is older than a validation that was due validates first."""

import lightning as L
import pytest
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from lightning_compress.training.endings.due_validations import DueValidation
from tests.support.runs import Save, resumes, trainer
from tests.support.toys import Batches, build, held_out


class Judge(L.Callback):
    """Notes the step and the epoch of each validation, as a method does that chooses by a metric."""

    def __init__(self):
        self.seen, self.due = [], DueValidation()

    def on_validation_end(self, trainer, pl_module):
        self.seen.append((trainer.global_step, trainer.current_epoch))
        self.due.done(trainer)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.due.save(trainer, checkpoint)

    def state_dict(self):
        return {"after": self.due.after}

    def load_state_dict(self, state):
        self.due = DueValidation(state["after"])


def fit(*callbacks, ckpt_path=None, **options):
    """Three epochs of 12 batches; the validations that were seen."""
    judge = Judge()
    L.seed_everything(0, verbose=False)
    run = trainer(judge, *callbacks, **({"max_epochs": 3} | options))
    run.fit(build(), Batches(), held_out(), ckpt_path=ckpt_path)
    return judge.seen


@resumes
@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, (11, 12, 13, 24, 36)),
        ({"val_check_interval": 0.5}, (5, 6, 7, 12, 18)),
        ({"val_check_interval": 5, "check_val_every_n_epoch": None}, (5, 12, 15)),
        ({"check_val_every_n_epoch": 2, "max_epochs": 4}, (12, 24, 36)),
    ],
    ids=["each epoch", "twice an epoch", "by batches", "every second epoch"],
)
def test_no_validation_is_left_out_and_none_comes_twice(options, steps, tmp_path):
    whole = fit(Save(tmp_path, steps), **options)
    for step in steps:
        resumed = fit(ckpt_path=tmp_path / f"step={step}.ckpt", **options)
        assert resumed == [seen for seen in whole if seen[0] >= step], step


@resumes
@pytest.mark.parametrize("after_validation", [True, False])
def test_a_checkpoint_that_follows_a_validation_is_left_as_it_is(after_validation, tmp_path):
    """``ModelCheckpoint`` writes when a validation ends, or an epoch; such a run goes on with the next epoch."""
    keep = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, save_on_train_epoch_end=not after_validation)
    whole = fit(keep)
    assert fit(ckpt_path=tmp_path / "step=12.ckpt") == whole[1:]


class Early(Checkpoint):
    """Writes before the judge has read the metrics of a validation."""

    def __init__(self, folder):
        self.folder = folder

    def on_validation_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"step={trainer.global_step}.ckpt")


@resumes
def test_a_validation_that_was_not_read_comes_again(tmp_path):
    whole = fit(Early(tmp_path))
    assert fit(ckpt_path=tmp_path / "step=24.ckpt") == whole[1:]


@resumes
def test_a_resumed_run_that_is_interrupted_again(tmp_path):
    whole = fit(Save(tmp_path, [12]))
    keep = ModelCheckpoint(tmp_path / "again", "{step}", save_top_k=-1)
    fit(keep, ckpt_path=tmp_path / "step=12.ckpt", max_epochs=2)
    assert fit(ckpt_path=tmp_path / "again" / "step=12.ckpt") == whole[1:]
