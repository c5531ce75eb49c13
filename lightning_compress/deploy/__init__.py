"""Deployment: a trained module written to a file that another program loads, and checked there."""

from lightning_compress.deploy.export import export
from lightning_compress.deploy.formats import Writer
from lightning_compress.deploy.freezing import freeze

__all__ = ["Writer", "export", "freeze"]
