"""Weight sharing: many weights, few values, each trained by all the weights that hold it."""

from lightning_compress.sharing.callback import WeightSharingCallback

__all__ = ["WeightSharingCallback"]
