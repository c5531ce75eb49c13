"""Deployment: a trained module written to a file that another program loads, and checked there."""

from lightning_compress.deploy.export import export

__all__ = ["export"]
