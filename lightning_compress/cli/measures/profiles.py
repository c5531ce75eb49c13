"""The command ``profile``: size, zeros, multiply-accumulates and latency of one trained module."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console

from lightning_compress.cli.runs.folders import Source
from lightning_compress.cli.runs.trained import Trained, in_options
from lightning_compress.cli.screens.tables import narrow_table, printable
from lightning_compress.example_inputs import check_runs
from lightning_compress.report.measures.profiles import ModelProfile, profile, shipped_macs
from lightning_compress.timing import Latency, measure_latencies

__all__ = ["print_profile"]


def print_profile(options: Namespace, source: Source, command_line: Callable[[], Any]) -> None:
    """Print the profile of a module, as a table or as JSON.

    Args:
        options: those of ``profile``.
        source: the files of the module.
        command_line: gives the class of CompressionCLI.

    Raises:
        ValueError: ``forward`` does not take the example.
    """
    trained = Trained.of(source, options.example, command_line)
    found, latency = profile(trained.module), None
    if trained.example is not None:
        try:
            check_runs(trained.module, trained.example)
        except ValueError as error:
            raise ValueError(in_options(str(error))) from error
        found = replace(found, macs=shipped_macs(trained.module, trained.example))
        (latency,) = measure_latencies([trained.module], trained.example)
    if options.json:
        totals = {"parameters": found.parameters, "nonzeros": found.nonzeros, "sparsity": found.sparsity}
        numbers = {"weights": str(source.weights), **totals, **asdict(found)}
        print(json.dumps({**numbers, "latency": asdict(latency) if latency else None}, indent=2))
        return
    print(f"{source.weights}, as {type(trained.module).__name__}")
    _show(found, latency, trained.lacking)


def _show(found: ModelProfile, latency: Latency | None, lacking: str) -> None:
    console = Console()
    whole = narrow_table("", "")
    whole.add_row("parameters", f"{found.parameters:,}")
    whole.add_row("non-zero parameters", f"{found.nonzeros:,}")
    whole.add_row("zeros", f"{found.sparsity:.2%}")
    whole.add_row("state dict, bytes", f"{found.state_bytes:,}")
    whole.add_row("archive (.lcz), bytes", f"{found.archive_bytes:,}")
    if found.macs:
        whole.add_row(f"MACs, input {found.macs.inputs}", f"{found.macs.total:,}")
    if latency:
        times = f"{1000 * latency.median:.3f} ({1000 * latency.lower:.3f}-{1000 * latency.upper:.3f})"
        whole.add_row(f"latency in PyTorch on {latency.device}, ms", times)
    console.print(whole)
    layers = narrow_table("parameter", "shape", "zeros", "bits", "bytes in .lcz")
    for layer in found.layers:
        shape = " x ".join(map(str, layer.shape))
        layers.add_row(
            printable(layer.name), shape, f"{layer.sparsity:.1%}", str(layer.bits), f"{layer.archive_bytes:,}"
        )
    console.print(layers)
    if lacking:
        print(f"MACs and latency need an example input ({lacking}): pass --example 1,3,224,224, or a file .pt or .npy")
