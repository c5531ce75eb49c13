"""Prepared runs: the module, data and callbacks of a config for ``fit``, built and not trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from lightning_compress.carried import carried_records, carried_structures, shapes_in
from lightning_compress.cli.screens.noise import quiet_loading
from lightning_compress.example_inputs import ExampleInput, first_samples, line_of, small_example_in
from lightning_compress.state_dicts import difference

__all__ = ["Prepared", "building"]


@dataclass(frozen=True)
class Prepared:
    """The parts of a run.

    Attributes:
        module: the LightningModule, with the weights of ``ckpt_path`` if one is given.
        data: the data module; None if the module has the data.
        callbacks: those of the Trainer, which trains nothing.
        loaded: whether the module has the weights of a checkpoint.
        command_line: the CompressionCLI that built them.
    """

    module: Any
    data: Any
    callbacks: tuple[Any, ...]
    loaded: bool
    command_line: Any = None

    @classmethod
    def of(cls, words: Sequence[str], command_line: Any) -> Prepared:
        """Build the parts that the words after ``fit`` describe, by a class of CompressionCLI."""
        with quiet_loading():
            cli = building(command_line)(
                args=["fit", *words], save_config_callback=None, parser_kwargs={"exit_on_error": False}
            )
        config, module = cli.config.get("fit"), cli.model
        # In the order of a Trainer: data and module are set up, then layers that are built late, then the weights.
        module.trainer = cli.trainer
        if cli.datamodule is not None:
            cli.datamodule.trainer = cli.trainer
            cli.datamodule.prepare_data()
            cli.datamodule.setup("fit")
        else:
            module.prepare_data()
        module.setup("fit")
        module.configure_model()
        path = config.get("ckpt_path")
        if path:
            _load(module, str(path))
        return cls(module, cli.datamodule, tuple(cli.trainer.callbacks), bool(path), cli)

    def written(self) -> list[tuple[Any, Mapping[str, Any]]]:
        """Each callback that the config names, and its entry there as text, numbers, lists and mappings."""
        parser = self.command_line.parser
        words = yaml.safe_load(parser.dump(self.command_line.config, skip_none=False, skip_validation=True))["fit"]
        # The Trainer adds callbacks of its own at the end of the list that it is given.
        return list(zip(_listed(self.command_line.config_init["fit"]), _listed(words), strict=False))

    def held_out(self) -> Any:
        """The loader of the validation data, the first if there are several."""
        loaders = (self.data or self.module).val_dataloader()
        return loaders[0] if isinstance(loaders, list | tuple) else loaders

    def example(self, callbacks: Sequence[object]) -> ExampleInput | None:
        """The first example input in the training data; None if a callback or the module has one."""
        if any(getattr(one, "example_input", None) is not None for one in callbacks):
            return None
        if getattr(self.module, "example_input_array", None) is not None:
            return None
        batch = next(iter((self.data or self.module).train_dataloader()))
        example: ExampleInput = first_samples(small_example_in(batch, self.module), 1)
        return example


def building(kind: Any) -> Any:
    """A class of CompressionCLI that builds the parts of a fit, and trains nothing.

    Args:
        kind: class of CompressionCLI.
    """

    class Building(kind):  # type: ignore[misc]
        """Builds the parts of a fit; ``fit`` does nothing."""

        def fit(self, **_: Any) -> None:
            return

    return Building


def _listed(config: Any) -> list[Any]:
    """The callbacks in a config of ``fit``, which has a list, one or none."""
    found = config["trainer"]["callbacks"]
    return list(found) if isinstance(found, list | tuple) else [] if found is None else [found]


def _load(module: Any, path: str) -> None:
    """Load weights as a Trainer does, with the records that the module carries."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])
        for structure in carried_structures(module):
            if structure.key in (records := carried_records(checkpoint)):
                structure.finish(module, records[structure.key], shapes_in(checkpoint))
    except Exception as error:  # of many kinds, most of which do not name the file
        raise ValueError(f"need a checkpoint of this model as ckpt_path, got {path!r}, {_cause(error)}") from error


def _cause(error: Exception) -> str:
    found = difference(error) if isinstance(error, RuntimeError) else None
    return f"which is of another: {found}" if found else f"which raises {line_of(error)}"
