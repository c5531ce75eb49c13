"""Twins: a toy of ``lightning`` as a class of ``pytorch_lightning``."""

import lightning.pytorch
import pytorch_lightning

__all__ = ["twin"]

BASES = [
    (lightning.pytorch.LightningModule, pytorch_lightning.LightningModule),
    (lightning.pytorch.LightningDataModule, pytorch_lightning.LightningDataModule),
    (lightning.pytorch.Callback, pytorch_lightning.Callback),
]


class _Twin(type):
    def mro(cls):
        return [
            one for one in super().mro() if not one.__module__.startswith(("lightning.pytorch.", "lightning.fabric."))
        ]


def twin(kind, **attributes):
    """The class with its base of ``lightning`` exchanged for that of ``pytorch_lightning``."""
    (base,) = [theirs for ours, theirs in BASES if issubclass(kind, ours)]
    return _Twin(kind.__name__, (kind, base), {"__module__": kind.__module__, **attributes})
