"""Handwritten digits (8 x 8, in scikit-learn) classified by a small convolution net, pruned to 90 %."""

from examples.digits.data import DigitsData
from examples.digits.module import DigitsClassifier

__all__ = ["DigitsClassifier", "DigitsData"]
