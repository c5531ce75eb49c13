"""Weight sharing: many weights, few values, each trained by all the weights that hold it; layers that are one layer."""

from lightning_compress.sharing.callback import WeightSharingCallback
from lightning_compress.sharing.tying import share

__all__ = ["WeightSharingCallback", "share"]
