"""A network that reads genes."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["GeneNet"]


class GeneNet(nn.Module):
    """A hidden layer between genes and classes; each column of ``genes.weight`` belongs to one gene.

    Args:
        genes: number of genes.
        hidden: width of the hidden layer.
        classes: number of classes.
    """

    def __init__(self, genes: int = 765, hidden: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.genes = nn.Linear(genes, hidden)
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, classes))

    def forward(self, expressions: Tensor) -> Tensor:
        """Expressions ``(N, genes)`` -> logits ``(N, classes)``."""
        logits: Tensor = self.head(self.genes(expressions))
        return logits
