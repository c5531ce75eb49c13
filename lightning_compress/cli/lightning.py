"""The command line for modules of ``lightning``."""

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI, _InstantiatorFn

from lightning_compress.cli.training import Compression

__all__ = ["CompressionCLI"]


class CompressionCLI(Compression, LightningCLI):
    """LightningCLI of ``lightning`` with the names of this package; see :class:`~.training.Compression`."""

    given, modules = _InstantiatorFn, LightningModule
