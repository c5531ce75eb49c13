"""Passes over an exported graph, each of which gives the same outputs in a form that runtimes of devices know.

A pass changes a graph of aten and ``quantized_decomposed`` operations in place; :func:`rewritten` gives a copy of a
program after some of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch.export import ExportedProgram
from torch.fx import GraphModule

__all__ = ["Pass", "packet_of", "rewrite", "rewritten"]

Pass: TypeAlias = Callable[[GraphModule], int]
"""Changes a graph in place; returns the number of places that it has changed."""


def packet_of(node: Any) -> Any:
    """The operation of a node, whatever its overload; None if it calls none."""
    return getattr(getattr(node, "target", None), "overloadpacket", None)


def rewritten(program: ExportedProgram, *passes: Pass) -> GraphModule:
    """The graph of ``program`` after the passes, in their order; ``program`` stays as it is."""
    module: GraphModule = program.module(check_guards=False)
    rewrite(module, *passes)
    return module


def rewrite(module: GraphModule, *passes: Pass) -> None:
    """Change a graph by the passes, in their order."""
    for one in passes:
        one(module)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
