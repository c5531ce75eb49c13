"""Runs the benchmarks of pruning one after the other: ``python -m benchmarks``."""

from benchmarks import fashion_pruning, model_pruning, step_cost, thresholds

for benchmark in (model_pruning, thresholds, step_cost, fashion_pruning):
    benchmark.main()
