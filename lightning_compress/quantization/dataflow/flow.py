"""Flow: which operation produces each value of a traced forward pass, and which operations consume it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from lightning_compress.quantization.dataflow.traces import Operation, Trace

__all__ = ["Dataflow"]

_CLAMPS = {"relu", "relu6", "hardtanh"}
# These only move values, or insert zeros: their output is on the grid that their input is on.
_MOVES = {"max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "flatten", "reshape"}
_MOVES |= {"view", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "dropout", "dropout2d", "pad"}


class Dataflow:
    """The operations of a trace as a graph.

    Args:
        trace: of one forward pass.

    Attributes:
        trace: the same.
        reused: names of the modules that one forward pass calls more than once.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        counts = Counter((call.module, call.outermost) for call in trace.calls)
        self.reused = {module for (module, _), count in counts.items() if count > 1}
        self._producers = {operation.output: operation for operation in trace.operations}
        self._consumers: dict[int, list[Operation]] = defaultdict(list)
        for operation in trace.operations:
            for value in operation.inputs:
                self._consumers[value].append(operation)

    def producer(self, value: int) -> Operation | None:
        """The operation whose output is ``value``; None for an input of the model or a parameter."""
        return self._producers.get(value)

    def consumers(self, value: int) -> list[Operation]:
        """The operations that read ``value``, once for each time that they do."""
        return self._consumers.get(value, [])

    def only_consumer(self, value: int) -> Operation | None:
        """The operation that reads ``value``, if it is read exactly once."""
        consumers = self.consumers(value)
        return consumers[0] if len(consumers) == 1 else None

    def moves(self, value: int) -> list[int]:
        """``value``, then the values that it was before each move (pooling, reshape), back to the computed one."""
        moves = [value]
        operation = self.producer(value)
        while operation is not None and operation.name in _MOVES:
            moves.append(operation.inputs[0])
            operation = self.producer(moves[-1])
        return moves

    def source(self, value: int) -> int:
        """The computed value of which ``value`` is a part or another shape."""
        return self.moves(value)[-1]

    def clamped(self, value: int) -> int:
        """The output of the ReLU that alone reads ``value``, if there is one; else ``value``."""
        consumer = self.only_consumer(value)
        return consumer.output if consumer is not None and consumer.name in _CLAMPS else value

    def fused(self, layer: Operation) -> int:
        """The output of a layer with the batch normalization and the ReLU after it, which kernels compute together."""
        value, consumer = layer.output, self.only_consumer(layer.output)
        if consumer is not None and consumer.name == "batch_norm":
            value = consumer.output
        return self.clamped(value)

    def upstream(self, values: Iterable[int]) -> set[int]:
        """``values`` and all values that they are computed from."""
        found = set(values)
        for operation in reversed(self.trace.operations):
            if operation.output in found:
                found.update(operation.inputs)
        return found

    def additions(self) -> list[Operation]:
        """The operations that add two values, in the order of their execution."""
        return [
            operation
            for operation in self.trace.operations
            if operation.name in ("add", "iadd", "radd") and len(operation.inputs) == 2
        ]
