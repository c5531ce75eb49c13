"""LightningCLI for a model that holds other models: a student and its teacher."""

from __future__ import annotations

from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI, _InstantiatorFn

__all__ = ["CompressionCLI"]

_PLAIN = (bool, int, float, str, type(None))


class CompressionCLI(LightningCLI):
    """LightningCLI in which each module knows the hyperparameters that are its own.

    Lightning tells those of ``model`` to every LightningModule that is built for it: a student in a
    ``DistillationModule``, or a teacher, would save them as its own. Arguments are those of LightningCLI.
    """

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        self.parser.add_instantiator(_Model(self, "model"), LightningModule, subclasses=True)

    def _parse_ckpt_path(self) -> None:
        # What a student saved says nothing of the module around it that the config describes.
        path = self.config.get(str(self.config.get("subcommand")), {}).get("ckpt_path")
        if path and Path(path).is_file():
            saved = torch.load(path, weights_only=True, map_location="meta").get("hyper_parameters", {})
            if "_class_path" not in saved and self.subclass_mode_model:
                return
        super()._parse_ckpt_path()


class _Model(_InstantiatorFn):
    def __call__(self, class_type: Any, *args: Any, applied_instantiation_links: dict[str, Any], **kwargs: Any) -> Any:
        self.cli._dump_config()
        if not self._is_configured(class_type, kwargs):
            return class_type(*args, **kwargs)
        return super().__call__(class_type, *args, applied_instantiation_links=applied_instantiation_links, **kwargs)

    def _is_configured(self, class_type: Any, arguments: dict[str, Any]) -> bool:
        """Whether it is ``model`` itself: of its class, with its numbers and words."""
        config = self.cli.config_dump[self.key]
        if "class_path" not in config:
            return class_type is self.cli._model_class
        asked = config.get("init_args", {})
        pairs = [(asked[name], arguments[name]) for name in asked.keys() & arguments.keys()]
        return locate(config["class_path"]) is class_type and all(
            one == other for one, other in pairs if isinstance(one, _PLAIN) and isinstance(other, _PLAIN)
        )
