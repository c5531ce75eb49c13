"""Launchers: processes that were started for ``fit`` bring their structures home, to the module of the main process.

``ddp_spawn``, ``ddp_fork`` and notebooks train copies of the module, and Lightning returns the state dict alone: the
module would lack its quantizers. It has no hook for more, so the two methods of its launchers that send and receive
the results are extended.
"""

from __future__ import annotations

from functools import wraps
from io import BytesIO
from typing import Any

import torch

from lightning_compress.carried import attach_structure, carried_structures, record_structures
from lightning_compress.lightnings import CallbackBase, of_each

__all__ = ["bring_structures_home"]

_RECORDS = "compression_records"


def bring_structures_home(methods: type[CallbackBase]) -> None:
    """Let the launchers of every installed Lightning return the carried records with the state dict.

    Args:
        methods: class of the callbacks, whose ``setup`` lets a module carry their structures.
    """
    for launcher in of_each("strategies.launchers._MultiProcessingLauncher"):
        if not hasattr(launcher.get_extra_results, "__wrapped__"):
            launcher.get_extra_results = _sending(launcher.get_extra_results)
            launcher.update_main_process_results = _receiving(launcher.update_main_process_results, methods)


def _sending(own: Any) -> Any:
    @wraps(own)
    def get_extra_results(launcher: Any, trainer: Any) -> dict[str, Any]:
        extra: dict[str, Any] = own(launcher, trainer)
        module = trainer.lightning_module
        records = record_structures(module, carried_structures(module))
        if records:
            buffer = BytesIO()
            torch.save(records, buffer)
            extra[_RECORDS] = buffer.getvalue()  # tensors in a queue live only as long as the process that put them
        return extra

    return get_extra_results


def _receiving(own: Any, methods: type[CallbackBase]) -> Any:
    @wraps(own)
    def update_main_process_results(launcher: Any, trainer: Any, extra: dict[str, Any]) -> None:
        own(launcher, trainer, extra)
        if _RECORDS not in extra:
            return
        module = trainer.lightning_module
        records = torch.load(BytesIO(extra[_RECORDS]), weights_only=True)
        for callback in trainer.callbacks:
            if isinstance(callback, methods):
                callback.setup(trainer, module, "validate")  # ran in the other processes alone
        for structure in carried_structures(module):
            attach_structure(module, structure, {**records, "state_dict": module.state_dict()})

    return update_main_process_results
