"""The source says the same as the imported class."""

import ast
import inspect

import pytest

import lightning_compress
from lightning_compress.cli.catalog.kinds import KINDS
from lightning_compress.cli.catalog.sources import entry

CLASSES = [(shelf.module, name) for shelf in KINDS["callbacks"] for name in shelf.names]
PARTS = [
    (shelf.module, name)
    for kind in ("schedules", "patterns", "granularities", "profiles", "losses", "formats")
    for shelf in KINDS[kind]
    for name in shelf.names
    if name[0].isupper()
]


def found(module, name):
    return getattr(__import__(f"lightning_compress.{module}", fromlist=[name]), name)


@pytest.mark.parametrize(("module", "name"), CLASSES + PARTS)
def test_arguments_are_those_of_the_constructor(module, name):
    parameters = inspect.signature(found(module, name)).parameters
    assert [argument.name for argument in entry(module, name).arguments] == list(parameters)
    for argument in entry(module, name).arguments:
        default = parameters[argument.name].default
        assert (argument.default == "required") == (default is inspect.Parameter.empty)
        if isinstance(default, bool | int | float | str):
            assert ast.literal_eval(argument.default) == default


@pytest.mark.parametrize(("module", "name"), CLASSES)
def test_every_argument_of_a_callback_has_a_text(module, name):
    assert [argument.name for argument in entry(module, name).arguments if not argument.text] == []


def test_texts_are_plain():
    told = entry("distillation.callback", "DistillationCallback")
    assert told.line == "The teacher of DistillationModule as a callback."
    assert entry("pruning.criteria", "magnitude").line == "Large weights are important: |w|."
    assert entry("deploy.writers.onnx", "Onnx").suffix == ".onnx"
    assert lightning_compress.PruningCallback.__doc__.startswith(entry("pruning.callback", "PruningCallback").line[:40])
