"""Deployment: a trained module in a file that another program runs, checked at export."""

from lightning_compress.deploy.export import export
from lightning_compress.deploy.formats import Writer
from lightning_compress.deploy.freezing import freeze

__all__ = ["Writer", "export", "freeze"]
