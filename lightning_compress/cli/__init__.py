"""The command line."""

from lightning_compress.cli.commands import main

__all__ = ["main"]
