"""Bits: how many a weight takes, chosen for each layer."""
