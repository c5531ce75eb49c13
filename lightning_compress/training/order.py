"""The order of projection: ``quantize(share(prune(latent)))``, whatever the order of the callbacks in the Trainer.

A method passes its place in this order to :class:`~.callback.WeightCompression`. Projections apply from the smallest
number to the largest; two methods with the same number exclude each other on a weight. A method of your own takes one
of these numbers, or any integer between two of them.
"""

__all__ = ["PRUNE", "QUANTIZE", "SHARE"]

PRUNE, SHARE, QUANTIZE = 10, 20, 30
