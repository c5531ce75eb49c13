"""Search: plans before training, and the sensitivity of each layer to each method."""

from lightning_compress.search.plans import Plan, PlannedLayer, PlannedMethod, plan

__all__ = ["Plan", "PlannedLayer", "PlannedMethod", "plan"]
