"""Channels: removed during training, until the tensors are truly smaller."""

from lightning_compress.channels.callback import ChannelPruningCallback

__all__ = ["ChannelPruningCallback"]
