"""Blood cells, classified by the expression of their genes; most genes are pruned while the network trains."""

from examples.single_cells.data import CellData
from examples.single_cells.models import GeneNet

__all__ = ["CellData", "GeneNet"]
