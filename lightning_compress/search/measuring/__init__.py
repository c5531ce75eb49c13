"""Measuring: the examples, the trials and the record of a sensitivity."""
