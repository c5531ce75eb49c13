"""Named lines of other libraries are held back, and nothing else."""

import logging
import warnings

from lightning_compress.cli.screens.noise import hushed, quiet_loading

LEAF = "`isinstance(treespec, LeafSpec)` is deprecated, use `isinstance(treespec, TreeSpec) and treespec.is_leaf()`"


def test_only_the_named_lines_are_held_back(caplog):
    folding = logging.getLogger("onnxscript.optimizer._constant_folding")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with hushed():
            folding.warning("Evaluation failed: %s", "cannot reshape array")
            folding.warning("Another")
            warnings.warn(LEAF, FutureWarning, stacklevel=1)
            warnings.warn("of the user", FutureWarning, stacklevel=1)
        folding.warning("Evaluation failed: later")
    assert [str(one.message) for one in warned] == ["of the user"]
    assert [record.getMessage() for record in caplog.records] == ["Another", "Evaluation failed: later"]


def test_levels_come_back():
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    with quiet_loading():
        assert logger.level == logging.WARNING
    assert logger.level == before
