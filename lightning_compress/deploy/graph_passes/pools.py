"""Pools: means over the space of a map, in the form for which runtimes of devices have kernels."""

from __future__ import annotations

from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch.fx import GraphModule

from lightning_compress.deploy.graph_passes.weights import reads_and_writes_codes

__all__ = ["average_without_padding", "convolve_means", "keep_space"]

_aten = torch.ops.aten
_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_channel.default
_LARGEST_WINDOW, _CODE = 64, 127


def keep_space(module: GraphModule) -> int:
    """Let means over the last two of four dimensions keep these, and drop them then: XNNPACK pools such means."""
    changed = 0
    for node in list(module.graph.nodes):
        if node.target is not _aten.mean.dim or (len(node.args) > 2 and node.args[2]):
            continue
        shape = node.args[0].meta["val"].shape
        if len(shape) == 4 and sorted(axis % 4 for axis in node.args[1] or ()) == [2, 3]:
            with module.graph.inserting_after(node):
                flat = module.graph.call_function(_aten.view.default, (node, [-1, int(shape[1])]))
            node.replace_all_uses_with(flat, delete_user_cb=lambda user, mine=flat: user is not mine)
            node.args = (node.args[0], [2, 3], True)
            changed += 1
    return changed


def average_without_padding(module: GraphModule) -> int:
    """Say that average pools without padding leave padding out of the mean: XNNPACK takes no others."""
    changed = 0
    for node in module.graph.nodes:
        if node.target is _aten.avg_pool2d.default:
            args = _pool_arguments(node)
            if args[5] and not any(args[3]):
                node.args = (*args[:5], False, *args[6:])
                changed += 1
    return changed


def convolve_means(module: GraphModule) -> int:
    """Compute means of few rounded values, over space or a window, by depthwise convolutions: LiteRT rounds these well.

    Its kernels of means round twice, first to ``2^-k`` of a step, with ``k`` digits of ``output scale * values / input
    scale``: of the means of 49 values one in sixteen becomes a step too large. Its average pools know a single scale.
    """
    changed = 0
    for node in list(module.graph.nodes):
        pool = _pool(node)
        if pool is None or not reads_and_writes_codes(node):
            continue
        window, stride, padding = pool
        channels, count = _shape(node.args[0])[1], window[0] * window[1]
        buffers = {
            "codes": torch.full((channels, 1, *window), _CODE, dtype=torch.int8),
            "scale": torch.full((channels,), 1 / (_CODE * count)),
            "zero_point": torch.zeros(channels, dtype=torch.int64),
        }
        with module.graph.inserting_before(node):
            constants = []
            for name, buffer in buffers.items():
                module.register_buffer(f"{node.name}_{name}", buffer)
                constants.append(module.graph.get_attr(f"{node.name}_{name}"))
            weight = module.graph.call_function(_DEQUANTIZE, (*constants, 0, -128, 127, torch.int8))
            args = (node.args[0], weight, None, stride, padding, [1, 1], channels)
            convolution = module.graph.call_function(_aten.conv2d.default, args)
        node.replace_all_uses_with(convolution, propagate_meta=True)
        changed += 1
    return changed


def _pool(node: Any) -> tuple[list[int], list[int], list[int]] | None:
    """Window, stride and padding of a mean over space, or of an average pool, of few values; None of others."""
    window, stride, padding, counted = [], [1, 1], [0, 0], True
    if node.target is _aten.mean.dim and len(node.args) > 2 and node.args[2]:
        shape = _shape(node.args[0])
        if len(shape) == 4 and sorted(axis % 4 for axis in node.args[1] or ()) == [2, 3]:
            window = shape[2:]
    elif node.target is _aten.avg_pool2d.default:
        _, window, stride, padding, rounds_up, counted, divisor = _pool_arguments(node)
        window = [] if rounds_up or divisor else window
    few = bool(window) and window[0] * window[1] <= _LARGEST_WINDOW
    return (window, stride or window, padding) if few and (counted or not any(padding)) else None


def _pool_arguments(node: Any) -> list[Any]:
    """All arguments of an average pool, with the defaults of the last."""
    return [*node.args, *([], [0, 0], False, True, None)[len(node.args) - 2 :]]


def _shape(node: Any) -> list[int]:
    """The shape of a value, as it was traced; empty if a pass has made the value."""
    return [int(size) for size in node.meta["val"].shape] if "val" in node.meta else []
