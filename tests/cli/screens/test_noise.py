"""Named lines of other libraries are held back, and nothing else."""

import logging
import warnings

from lightning_compress.cli.screens.noise import hushed, quiet_loading

LEAF = "`isinstance(treespec, LeafSpec)` is deprecated, use `isinstance(treespec, TreeSpec) and treespec.is_leaf()`"


def test_only_the_named_warning_is_held_back():
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with hushed():
            warnings.warn(LEAF, FutureWarning, stacklevel=1)
            warnings.warn("of the user", FutureWarning, stacklevel=1)
    assert [str(one.message) for one in warned] == ["of the user"]


def test_levels_come_back():
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    with quiet_loading():
        assert logger.level == logging.WARNING
    assert logger.level == before
