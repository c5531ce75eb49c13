"""Ctrl-C ends a run with the command that goes on from its newest checkpoint."""

import logging
import os
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_compress.cli.runs.callback import ResumeLine

WORDS = ["fit", "--config", "a b.yaml", "--ckpt_path", "old.ckpt", "--ckpt_path=older.ckpt", "--trainer.max_epochs=3"]


def said(caplog, *callbacks, exception=None, stage="fit"):
    run = SimpleNamespace(state=SimpleNamespace(fn=stage), callbacks=list(callbacks), progress_bar_callback=None)
    with caplog.at_level(logging.INFO):
        ResumeLine(WORDS).on_exception(run, None, exception or KeyboardInterrupt())
    return [record.getMessage() for record in caplog.records]


def test_the_newest_checkpoint_is_named(tmp_path, caplog):
    callback = ModelCheckpoint(tmp_path)
    callback.best_model_path, callback.last_model_path = f"{tmp_path}/best.ckpt", f"{tmp_path}/last.ckpt"
    for age, name in enumerate(("last.ckpt", "best.ckpt")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (age, age))
    again = f"fit --config 'a b.yaml' --trainer.max_epochs=3 --ckpt_path {tmp_path}/best.ckpt"
    assert said(caplog, callback) == [f"to go on: lightning-compress {again}"]


def test_a_run_without_checkpoints_says_so(tmp_path, caplog):
    assert said(caplog, ModelCheckpoint(tmp_path)) == [
        "no checkpoint was written: the run cannot go on, and begins anew"
    ]


@pytest.mark.parametrize(("exception", "stage"), [(ValueError(), "fit"), (KeyboardInterrupt(), "test")], ids=str)
def test_other_ends_say_nothing(exception, stage, caplog):
    assert said(caplog, exception=exception, stage=stage) == []
