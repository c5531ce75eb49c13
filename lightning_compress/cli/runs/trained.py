"""Trained modules: from the folder of a run, from a checkpoint, or from an archive."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any

from lightning_compress.cli.runs.folders import Source
from lightning_compress.cli.runs.prepared import building
from lightning_compress.cli.screens.noise import quiet_loading
from lightning_compress.example_inputs import ExampleInput, first_samples, small_example_in
from lightning_compress.loading import load_compressed

__all__ = ["Trained", "in_options"]


@dataclass(frozen=True)
class Trained:
    """A trained module.

    Attributes:
        module: the module, in evaluation mode, with the weights of the file.
        example: an input of its ``forward``; None if none was found.
        lacking: the reason why there is none; empty if there is one.
    """

    module: Any
    example: ExampleInput | None
    lacking: str = ""

    @classmethod
    def of(cls, source: Source, given: str | None, command_line: Callable[[], Any]) -> Trained:
        """Load a module.

        Args:
            source: the weights, and the config or the class.
            given: the example input: sizes, as ``1,3,224,224``, or a file; None for that of the module or its data.
            command_line: gives the class of CompressionCLI.

        Raises:
            ValueError: the class is not known or cannot be imported, or the example cannot be read.
        """
        batch: Any = None
        if source.config is not None:
            built = _built(source.config, command_line())
            kind, arguments, batch = built.kind, built.arguments, built.batch
        else:
            kind, arguments = _class_of(source.cls), {}
        module: Any = load_compressed(kind, source.weights, **arguments)
        module.eval()
        example = _read_example(given) if given else getattr(module, "example_input_array", None)
        if example is not None or batch is None:
            return cls(module, example, "" if example is not None else "there is no config that names data")
        try:
            return cls(module, first_samples(small_example_in(batch(), module), 1))
        except Exception as error:  # of the user's data, or data that is no input of forward
            return cls(module, None, f"the data gives none: {error}")


def in_options(text: str) -> str:
    """A message in the words of the commands in place of those of Python."""
    text = text.replace("set module.example_input_array, or pass example_input", "pass another as --example")
    return text.replace("example_input", "--example")


@dataclass(frozen=True)
class _Built:
    kind: type
    arguments: dict[str, Any]
    batch: Callable[[], Any]


def _built(config: Path, command_line: Any) -> _Built:
    """The class of the model of a config, its arguments, and its first training batch."""
    with quiet_loading():
        cli = building(command_line)(
            args=["fit", "--config", str(config)], save_config_callback=None, parser_kwargs={"exit_on_error": False}
        )
    model, data = cli.model, cli.datamodule
    student = getattr(model, "student", None)
    taught = type(model).__name__ == "DistillationModule" and student is not None

    def batch() -> Any:
        if data is not None:
            data.prepare_data()
            data.setup("fit")
        return next(iter((data or model).train_dataloader()))

    # The checkpoint of a DistillationModule is that of its student, with the hyperparameters of the student.
    return _Built(type(student), {}, batch) if taught else _Built(type(model), dict(cli.model_arguments), batch)


def _class_of(path: str) -> Any:
    """The class at a dotted path; modules in the working directory are found."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = locate(path)
    except ErrorDuringImport as error:
        raise ValueError(f"need the class of the module, got {path}, whose import raises {error.value!r}") from error
    if not isinstance(found, type):
        raise ValueError(
            f"need the class of the module, got {path}, which cannot be imported from here: start the command in the "
            "folder of your project, or pass its dotted path as --model"
        )
    return found


def _read_example(given: str) -> ExampleInput:
    import numpy
    import torch

    path = Path(given)
    if path.suffix in (".pt", ".pth", ".npy"):
        try:
            if path.suffix == ".npy":
                return torch.from_numpy(numpy.load(path, allow_pickle=False))
            example: ExampleInput = torch.load(path, weights_only=True, map_location="cpu")
            return example
        except OSError:  # whose message names the file
            raise
        except Exception as error:  # of many kinds
            raise ValueError(f"need --example as a file of tensors, got {given!r}, which is damaged") from error
    try:
        sizes = [int(size) for size in given.replace("x", ",").split(",")]
    except ValueError as error:
        raise ValueError(
            f"need --example as sizes, such as 1,3,224,224, or as a file .pt or .npy, got {given!r}"
        ) from error
    if min(sizes) < 1:
        raise ValueError(f"need --example as sizes of at least 1, such as 1,3,224,224, got {given!r}")
    return torch.randn(sizes, generator=torch.Generator().manual_seed(0))
