"""The catalog has the names that a config may use, no more and no fewer."""

import inspect
from pathlib import Path

import pytest

import lightning_compress
from lightning_compress.cli.catalog.kinds import KINDS
from lightning_compress.cli.catalog.sources import entry
from lightning_compress.cli.vocabulary import members_of
from lightning_compress.deploy.export import FORMATS

TAKERS = sorted({shelf.taker for shelves in KINDS.values() for shelf in shelves if shelf.taker})


@pytest.mark.parametrize("taker", TAKERS)
def test_names_are_those_that_the_argument_takes(taker):
    callback, _, argument = taker.partition(".")
    owner = getattr(lightning_compress, callback)
    found = members_of(owner, str(inspect.signature(owner).parameters[argument].annotation))
    package = Path(lightning_compress.__file__).parent  # another test may have added a writer from a folder of its own
    taken = [name for name, member in found.items() if package in Path(inspect.getfile(member)).parents]
    listed = [name for shelves in KINDS.values() for shelf in shelves if shelf.taker == taker for name in shelf.names]
    assert sorted(listed) == sorted(taken)


def test_every_format_and_every_callback_is_listed():
    suffixes = [entry(shelf.module, name).suffix for shelf in KINDS["formats"] for name in shelf.names]
    assert sorted(suffixes) == ["", *sorted(FORMATS)]  # a folder has no suffix
    others = {"CompressionBudget", "CompressionReport"}
    callbacks = {name for name in lightning_compress.__all__ if name.endswith("Callback")} | others
    assert {name for shelf in KINDS["callbacks"] for name in shelf.names} == callbacks
