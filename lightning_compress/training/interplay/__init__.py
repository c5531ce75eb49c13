"""Other callbacks and code in the same Trainer: weight averaging, monitors, and writes into compressed weights."""
