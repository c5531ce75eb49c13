"""What all tests share."""

from collections.abc import Iterator
from functools import cache

import lightning.fabric.utilities.registry
import lightning_fabric.utilities.registry
import pytest
import torch

from tests.support.web import web_package


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what a machine without npm does not test."""
    if web_package() is None:
        terminalreporter.section("NOT TESTED: ONNX Runtime Web", red=True)
        terminalreporter.line("need Node.js and npm: install them, delete .venv/.web and run make test")


@pytest.fixture(autouse=True, scope="session")
def entry_points_read_once() -> Iterator[None]:
    """Lightning looks for callbacks of installed packages whenever a Trainer is made, which is thousands of times."""
    with pytest.MonkeyPatch.context() as patch:
        for registry in (lightning.fabric.utilities.registry, lightning_fabric.utilities.registry):
            patch.setattr(registry, "entry_points", cache(registry.entry_points))
        yield


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Each test draws the same numbers, whichever tests have run before it in its process."""
    torch.manual_seed(0)
