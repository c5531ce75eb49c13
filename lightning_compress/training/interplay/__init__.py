"""Everything else in the same Trainer: optimizers, monitors, logs, averages, and code that writes into weights."""
