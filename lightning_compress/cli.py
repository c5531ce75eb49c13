"""The command line: Lightning's own, with this package's names at hand, and a look into archives.

lightning-compress fit --config digits.yaml
lightning-compress inspect model.lcz
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from lightning_compress.archive import ArchiveError, inspect_archive

__all__ = ["inspect", "main", "run"]


def main(args: Sequence[str] | None = None) -> None:
    """Run one command; ``args`` are those of the command line by default."""
    given = sys.argv[1:] if args is None else list(args)
    if given[:1] == ["inspect"]:
        inspect(given[1:])
    else:
        run(args)


def run(args: Sequence[str] | None = None) -> None:
    """``fit``, ``validate``, ``test`` or ``predict``: :class:`lightning.pytorch.cli.LightningCLI`.

    The class of the model and of the data are given by the config; a config written before is written over.
    """
    # Lightning takes seconds to import, and a look into an archive does not need it.
    from lightning.pytorch.cli import LightningCLI

    import lightning_compress
    import lightning_compress.report

    for name in lightning_compress.__all__:  # a class that is imported can be named in a config without its path
        getattr(lightning_compress, name)
    # As with `python -m`, the modules of a project are found from its folder.
    sys.path.insert(0, os.getcwd())
    LightningCLI(
        args=None if args is None else list(args),
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"description": "Compression during training. Beside these: inspect model.lcz lists an archive."},
    )


def inspect(args: Sequence[str]) -> None:
    """``inspect model.lcz``: what is in an archive, and how near each tensor is to the least that was possible."""
    parser = ArgumentParser("lightning-compress inspect", description="List the tensors of an archive.")
    parser.add_argument("path", help="a file that ends in .lcz")
    path = parser.parse_args(list(args)).path
    try:
        contents = inspect_archive(path)
    except (OSError, ArchiveError) as error:
        parser.error(str(error))
    table = Table(title=path, title_justify="left", box=box.SIMPLE_HEAD)
    for index, head in enumerate(("tensor", "shape", "dtype", "form", "elements", "bytes", "entropy", "bits each")):
        table.add_column(head, justify="left" if index < 4 else "right", overflow="fold")
    for tensor in contents.tensors:
        table.add_row(
            tensor.name,
            " x ".join(map(str, tensor.shape)),
            str(tensor.dtype).removeprefix("torch."),
            tensor.form,
            f"{tensor.count:,}",
            f"{tensor.bytes:,.0f}",
            f"{tensor.entropy_bytes:,.0f}",
            f"{tensor.bits_per_weight:.2f}",
        )
    console = Console()
    console.print(table)
    console.print(
        f"{contents.file_bytes:,} bytes in the file, {contents.dense_bytes:,} in memory: {contents.ratio:.2f}x smaller"
    )


if __name__ == "__main__":
    main()
