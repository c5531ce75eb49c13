"""Weight sharing: the weights of a layer hold few distinct values, and these values are trained."""

from lightning_compress.sharing import gradients, initial_centers
from lightning_compress.sharing.callback import WeightSharingCallback

__all__ = ["WeightSharingCallback", "gradients", "initial_centers"]
