"""LightningCLI with the names of this package at hand, also for a student that holds its teacher.

The class of each Lightning is in a file of its own: :mod:`~.cli.lightning` and :mod:`~.cli.pytorch_lightning`.
"""

from __future__ import annotations

import sys
from argparse import SUPPRESS, ArgumentError
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from pydoc import locate
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
import yaml
from jsonargparse import get_loader, set_loader

import lightning_compress
from lightning_compress.cli.runs.changes import changed_callbacks, without_changes
from lightning_compress.cli.vocabulary import expanded, expanded_words
from lightning_compress.lightnings import LightningModule, Trainer, of_each, rank_zero_info
from lightning_compress.loading.modules import carry_records
from lightning_compress.loading.weights import load_weights
from lightning_compress.state_dicts import checkpoint_in, explain_loading

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
    from lightning.pytorch.cli import LightningCLI as _OfEither
else:
    _OfEither = object

    class SaveConfigCallback(*of_each("cli.SaveConfigCallback")):
        """SaveConfigCallback for the Trainer of either Lightning."""


__all__ = ["Compression", "RunConfig", "print_group"]

_HEADERS = b"# lightning.pytorch==", b"# pytorch_lightning=="  # first bytes of a config that LightningCLI saved
_MODE = "lightning_compress"  # of reading a config
_PLAIN = (bool, int, float, str, type(None))


class Compression(_OfEither):
    """CompressionCLI without the LightningCLI, of either package, that it extends.

    Bare names of this package resolve, and each module keeps its own hyperparameters. A config may write
    ``class_path: PruningCallback`` and ``criterion: taylor``, without dotted paths; see
    :mod:`~lightning_compress.cli.vocabulary`.

    Lightning passes the hyperparameters of ``model`` to every LightningModule that is built for it, so a student in a
    ``DistillationModule``, or a teacher, would save them as its own. Here only ``model`` itself gets them. Arguments
    are those of LightningCLI.

    Attributes:
        given: Lightning's instantiator, which passes the hyperparameters on.
        modules: Lightning's base of modules.
        model_arguments: those that ``model`` was built with.
    """

    given: Any
    modules: Any
    model_arguments: Mapping[str, Any] = MappingProxyType({})

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        set_loader(_MODE, _load, (yaml.YAMLError,))
        for name in lightning_compress.__all__:  # jsonargparse resolves a bare name once its class is imported
            getattr(lightning_compress, name)
        return super().init_parser(**{"parser_mode": _MODE, **kwargs})

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_core_arguments_to_parser(parser)
        # Without defaults they are not in the saved configs of runs that have none.
        parser.add_argument(
            "--weights",
            type=str,
            default=SUPPRESS,
            help="the model starts from the weights in this file: a checkpoint, an archive or a state dict",
        )
        parser.add_argument(
            "--sweep", type=dict[str, Any], default=SUPPRESS, help="ranges of lightning-compress sweep; not of this run"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        if args is not None and not isinstance(args, list):
            super().parse_arguments(parser, args)
            return
        words, values = without_changes(expanded_words(sys.argv[1:] if args is None else args))
        if values:
            found = parser.parse_args([word for word in words if not word.startswith("--print_config")])  # ends there
            verb = found.get("subcommand")
            dumped = self._parser(verb).dump(found[verb] if verb else found, skip_none=False)
            words.append(changed_callbacks(get_loader("yaml")(dumped), values))
        self.config = parser.parse_args(words)

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        if weights := self._get(self.config, "weights"):
            load_weights(self.model, weights)
        if self._checkpoint is not None:  # a model that has lost channels is loaded without the callback that did it
            carry_records(self.model, self._checkpoint)
            explain_loading(self.trainer.strategy)

    @property
    def _checkpoint_file(self) -> str | None:
        """The ``ckpt_path`` of the command, if it is a file."""
        path = self.config.get(str(self.config.get("subcommand")), {}).get("ckpt_path")
        return str(path) if path and Path(path).is_file() else None

    @cached_property
    def _checkpoint(self) -> Mapping[str, Any] | None:
        """Its content, without the values of tensors; read once."""
        path = self._checkpoint_file
        if path is None:
            return None
        read = partial(torch.load, path, weights_only=True, map_location="meta")
        return checkpoint_in(path, read, ["state_dict"])  # plan and sensitivity need no more

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        self.parser.add_instantiator(_Model(self, self.given(self, "model")), self.modules, subclasses=True)

    def _parse_ckpt_path(self) -> None:
        # The hyperparameters of a student say nothing about the module around it, which the config describes.
        saved = (self._checkpoint or {}).get("hyper_parameters", {})
        if self._checkpoint and "_class_path" not in saved and self.subclass_mode_model:
            return
        try:
            super()._parse_ckpt_path()
        except ArgumentError as error:
            raise ArgumentError(None, f"Hyperparameters that {self._checkpoint_file} holds:\n{error}") from error


def print_group(command_line: Any, verb: str, group: str, groups: Sequence[str]) -> None:
    """Print the help of one group of the arguments of a command.

    Args:
        command_line: class of CompressionCLI.
        verb: the command.
        group: first part of the names of the arguments, or ``"all"``.
        groups: those that there are.

    Raises:
        ValueError: there is no such group.
    """
    if group not in groups:
        raise ValueError(f"need {verb} --help, or {verb} --help GROUP with one of {', '.join(groups)}, got {group!r}")

    class Page(command_line):  # type: ignore[misc]
        """Prints, and ends the process."""

        def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
            page = self._parser(verb)
            if group != "all":
                page._action_groups = [_part(one, group) for one in page._action_groups]
                page.usage = f"lightning-compress {verb} [--{group}.NAME VALUE ...]"
            page.print_help()
            sys.exit(0)

    Page(args=[verb], save_config_callback=None)


def _part(group: Any, name: str) -> Any:
    actions = [action for action in group._group_actions if action.dest.partition(".")[0] == name]
    group._group_actions[:] = actions
    return group


def _load(text: str) -> Any:
    return expanded(get_loader("yaml")(text))


class _Model:
    def __init__(self, cli: Compression, give: Callable[..., Any]) -> None:
        self._cli = cli
        self._give = give

    def __call__(self, class_type: Any, *args: Any, applied_instantiation_links: dict[str, Any], **kwargs: Any) -> Any:
        self._cli._dump_config()
        if not self._is_configured(class_type, kwargs):
            return class_type(*args, **kwargs)
        self._cli.model_arguments = kwargs
        return self._give(class_type, *args, applied_instantiation_links=applied_instantiation_links, **kwargs)

    def _is_configured(self, class_type: Any, arguments: dict[str, Any]) -> bool:
        """Whether it is ``model`` itself: same class, same plain arguments."""
        config = self._cli.config_dump["model"]
        if "class_path" not in config:
            return class_type is self._cli._model_class
        asked = config.get("init_args", {})
        pairs = [(asked[name], arguments[name]) for name in asked.keys() & arguments.keys()]
        return locate(config["class_path"]) is class_type and all(
            one == other for one, other in pairs if isinstance(one, _PLAIN) and isinstance(other, _PLAIN)
        )


class RunConfig(SaveConfigCallback):
    """Saves the config of a run beside its log; it replaces the config of an earlier run, and no other file.

    Without a logger the folder is ``default_root_dir``, by default the working directory, where the user may have a
    ``config.yaml``. Arguments are those of SaveConfigCallback.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        path = Path(trainer.log_dir or trainer.default_root_dir, self.config_filename)
        if trainer.strategy.broadcast(self._is_theirs(path)):
            self.save_to_log_dir = False
            rank_zero_info(
                f"the config of this run is not saved: {path} is the config that was read, or a file that no run "
                "saved, and stays as it is; set trainer.default_root_dir or trainer.logger to save it elsewhere"
            )
        super().setup(trainer, pl_module, stage)

    def _is_theirs(self, path: Path) -> bool:
        if self.already_saved or not path.is_file():
            return False
        if any(path.samefile(str(source)) for source in self.config.get("config") or () if source):
            return True
        return not path.read_bytes().startswith(_HEADERS)
