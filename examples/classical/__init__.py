"""Logistic regression and a linear support vector machine, on tables of scikit-learn, pruned."""

from examples.classical.data import TableData
from examples.classical.modules import LinearSVM, LogisticRegression

__all__ = ["LinearSVM", "LogisticRegression", "TableData"]
