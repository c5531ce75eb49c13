"""Sweeps: many runs of one config, with values of its ranges put in by Optuna (extra ``sweep``)."""
