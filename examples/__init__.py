"""Runnable examples on real data; each folder holds a data module, a model, a YAML and a README."""
