"""Channels: removed during training, until the tensors are truly smaller."""

from lightning_compress.channels import criteria
from lightning_compress.channels.callback import ChannelPruningCallback
from lightning_compress.channels.zero_channels import remove_zero_channels

__all__ = ["ChannelPruningCallback", "criteria", "remove_zero_channels"]
