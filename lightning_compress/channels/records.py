"""Records: the shapes of a module whose channels may have been removed, in a checkpoint."""

from lightning_compress.channels.removal.shapes import CHANNELS

__all__ = ["CHANNELS"]
