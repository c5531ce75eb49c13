"""Modules of other people's packages, each with each method."""
