"""Search: plans before training, and compression that is chosen during training."""

from lightning_compress.search.budget.callback import CompressionBudget
from lightning_compress.search.plans import Plan, PlannedLayer, PlannedMethod, plan

__all__ = ["CompressionBudget", "Plan", "PlannedLayer", "PlannedMethod", "plan"]
