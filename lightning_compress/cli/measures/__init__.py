"""Measures: commands that measure and predict, and train nothing."""
