"""Search: plans before training, sensitivities, budgets that choose during training, sweeps and comparisons."""

from lightning_compress.costs.second_order import second_order_cost
from lightning_compress.search.budget.callback import CompressionBudget
from lightning_compress.search.comparison.compared import ComparedRun, ComparedRuns
from lightning_compress.search.comparison.comparing import compare
from lightning_compress.search.fisher import BatchLoss, diagonal_fisher
from lightning_compress.search.measuring.results import LayerSensitivity, Sensitivity
from lightning_compress.search.objectives import Logged, Mean, OfOutputs, Score, Scored, training_loss
from lightning_compress.search.plans import Plan, PlannedLayer, PlannedMethod, plan
from lightning_compress.search.sensitivities import sensitivity
from lightning_compress.search.sweeps.results import SweepResult, SweptTrial

__all__ = [
    "BatchLoss",
    "ComparedRun",
    "ComparedRuns",
    "CompressionBudget",
    "LayerSensitivity",
    "Logged",
    "Mean",
    "OfOutputs",
    "Plan",
    "PlannedLayer",
    "PlannedMethod",
    "Score",
    "Scored",
    "Sensitivity",
    "SweepResult",
    "SweptTrial",
    "compare",
    "diagonal_fisher",
    "plan",
    "second_order_cost",
    "sensitivity",
    "training_loss",
]
