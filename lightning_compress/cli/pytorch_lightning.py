"""The command line for modules of ``pytorch_lightning``."""

from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LightningCLI, _InstantiatorFn

from lightning_compress.cli.training import Compression

__all__ = ["CompressionCLI"]


class CompressionCLI(Compression, LightningCLI):  # type: ignore[misc]
    """LightningCLI of ``pytorch_lightning`` with the names of this package; see :class:`~.training.Compression`."""

    given, modules = _InstantiatorFn, LightningModule
