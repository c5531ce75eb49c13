"""Silence: notes are held back, and all is as before."""

import logging
import os
import sys
import warnings

import pytest

from lightning_compress.deploy.runtimes.silence import hushed, silenced

log = logging.getLogger("another library")


def speak():
    warnings.warn("a warning", stacklevel=1)
    log.error("a record")
    os.write(2, b"a note of C++\n")
    print("a note of Python", file=sys.stderr)


def test_notes_are_held_back(capfd, caplog):
    with silenced():
        speak()
    assert capfd.readouterr().err == ""
    assert not caplog.records
    with pytest.warns(UserWarning, match="a warning"):
        speak()
    assert "a note of C++" in capfd.readouterr().err
    assert [record.message for record in caplog.records] == ["a record"]


def test_after_an_error_they_are_shown(capfd):
    @silenced()
    def fail():
        os.write(2, b"the cause\n")
        raise RuntimeError("code 18")

    with pytest.raises(RuntimeError, match="code 18"):
        fail()
    assert "the cause" in capfd.readouterr().err


def test_only_the_named_lines_are_held_back(caplog):
    folding = logging.getLogger("onnxscript.optimizer._constant_folding")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with hushed():
            folding.warning("Evaluation failed: %s", "cannot reshape array")
            folding.warning("Another")
            warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated", FutureWarning, stacklevel=1)  # of the user
            warnings.warn("The tensor attribute self.cache was assigned during export. ", stacklevel=1)
            warnings.warn("The tensor attributes self.a._flat_weights[0], self.a._flat_weights[1] were", stacklevel=1)
        folding.warning("Evaluation failed: later")
    assert [str(one.message) for one in warned] == [
        "`isinstance(treespec, LeafSpec)` is deprecated",
        "The tensor attribute self.cache was assigned during export. ",
    ]
    assert [record.getMessage() for record in caplog.records] == ["Another", "Evaluation failed: later"]
