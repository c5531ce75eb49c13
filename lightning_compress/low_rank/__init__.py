"""Low rank: weights become products of two thin matrices during training, and layers are split in two."""

from lightning_compress.low_rank.callback import LowRankCallback
from lightning_compress.low_rank.layers import Factorized
from lightning_compress.low_rank.splitting import split_low_rank

__all__ = ["Factorized", "LowRankCallback", "split_low_rank"]
