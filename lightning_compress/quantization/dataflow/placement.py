"""Placement: which tensors to quantize, and which module to hook for each.

Quantized is what enters a target layer. A runtime that adds integers fuses an operation when its inputs *and* its
output are quantized: for it, branches are too, which is what leaves a convolution (behind its normalisation and ReLU)
on the way to another target, and sums of such tensors. Each tensor is quantized once, where it is produced, so that
every reader sees the same integers: by a hook on the outermost module that returns it; where no module does, on the
input of the outermost modules that take it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from lightning_compress.quantization.activations.quantizers import Place
from lightning_compress.quantization.dataflow.kinds import CONVOLUTIONS, LAYER_OPERATIONS, input_first
from lightning_compress.quantization.dataflow.traces import Operation, Trace

__all__ = [
    "Placement",
    "place_quantizers",
    "reused_modules",
    "sources",
]

_CLAMPS = {"relu", "relu6", "hardtanh"}
# These move values and invent none but zero: what is on a grid before them is on it behind them.
_MOVES = {"max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "flatten", "reshape"}
_MOVES |= {"view", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "dropout", "dropout2d", "pad"}


@dataclass(frozen=True)
class Placement:
    """Where quantizers go.

    Attributes:
        places: place -> value (of the trace) that is quantized there.
        missed: targets whose input no hook can reach.
    """

    places: Mapping[Place, int]
    missed: tuple[str, ...]


def place_quantizers(trace: Trace, targets: Collection[str], *, branches: bool = True) -> Placement:
    """Choose the places for the traced forward pass.

    Args:
        trace: of the model.
        targets: names of the layers that shall compute in integers.
        branches: whether branches are quantized before they are added up, and not their sums alone.
    """
    readers = {
        name: input_first(operation)
        for operation in trace.operations
        for name in targets
        if operation.name in LAYER_OPERATIONS and not trace.weights[name].isdisjoint(operation.inputs)
        # What runs in a layer is its own, though another layer may have the same weight.
        if operation.module == name or operation.module not in targets
    }
    graph = _Graph(trace.operations)
    once = {call.module for call in trace.calls} - reused_modules(trace)
    outputs = {call.output: call.module for call in trace.calls if call.output != call.input and call.module in once}
    takers = defaultdict(set)
    for call in trace.calls:
        if call.module in once | set(targets):
            takers[call.input].add(call.module)
    places: dict[Place, int] = {}
    for value in graph.points(list(readers.values()), branches):
        if outputs.get(value):  # the last to return it is the outermost; the model as a whole has no name
            places[Place(outputs[value], "output")] = value
            continue
        for name, operation in readers.items():
            moves = graph.moves(operation.inputs[0])
            for moved in moves if moves[-1] == value else ():  # a convolution itself may pad what it takes
                place = _outermost(name, takers[moved], targets)
                if place is not None:
                    places[Place(place, "input")] = moved
                    break
    reached = {graph.source(value) for value in places.values()}
    missed = [name for name in targets if name not in readers or graph.source(readers[name].inputs[0]) not in reached]
    return Placement(places, tuple(missed))


def reused_modules(trace: Trace) -> set[str]:
    """Names of the modules that one forward pass calls more than once."""
    counts = Counter((call.module, call.outermost) for call in trace.calls)
    return {module for (module, _), count in counts.items() if count > 1}


def sources(trace: Trace) -> Callable[[int], int]:
    """The function: value -> the value that it is a part or a new shape of, where it was computed."""
    return _Graph(trace.operations).source


def _outermost(target: str, takers: Collection[str], targets: Collection[str]) -> str | None:
    """The outermost of the modules ``takers`` around a target; not one around them all, for that is the model."""
    around = [name for name in takers if target == name or target.startswith(f"{name}.")]
    whole = [name for name in around if name != target and all(other.startswith(f"{name}.") for other in targets)]
    return min((name for name in around if name and name not in whole), key=len, default=None)


class _Graph:
    def __init__(self, operations: list[Operation]) -> None:
        self._operations = operations
        self._producer = {operation.output: operation for operation in operations}
        self._consumers: dict[int, list[Operation]] = defaultdict(list)
        for operation in operations:
            for value in operation.inputs:
                self._consumers[value].append(operation)

    def points(self, readers: list[Operation], branches: bool) -> list[int]:
        """The values to quantize, in the order of their computation."""
        points = {self.source(operation.inputs[0]) for operation in readers}
        if not branches:
            return sorted(points)
        reaching = self._reaching(readers)
        convolved = [self._fused(operation) for operation in readers if operation.name in CONVOLUTIONS]
        points.update(value for value in convolved if value in reaching)
        for operation in self._operations:
            if operation.name in ("add", "iadd", "radd") and len(operation.inputs) == 2:
                total = self._clamped(operation.output)
                if total in reaching and all(self.source(value) in points for value in operation.inputs):
                    points.add(total)
        return sorted(points)

    def source(self, value: int) -> int:
        """Where a value was computed that has only been moved since."""
        return self.moves(value)[-1]

    def moves(self, value: int) -> list[int]:
        """A value, and what it was before it was moved, back to where it was computed."""
        moves = [value]
        operation = self._producer.get(value)
        while operation is not None and operation.name in _MOVES:
            moves.append(operation.inputs[0])
            operation = self._producer.get(moves[-1])
        return moves

    def _fused(self, convolution: Operation) -> int:
        """What leaves a convolution that has taken in the normalisation and the ReLU behind it."""
        value, then = convolution.output, self._consumers[convolution.output]
        if len(then) == 1 and then[0].name == "batch_norm":
            value = then[0].output
        return self._clamped(value)

    def _clamped(self, value: int) -> int:
        then = self._consumers[value]
        return then[0].output if len(then) == 1 and then[0].name in _CLAMPS else value

    def _reaching(self, readers: list[Operation]) -> set[int]:
        """The values that some reader depends on."""
        reaching = {operation.inputs[0] for operation in readers}
        for operation in reversed(self._operations):
            if operation.output in reaching:
                reaching.update(operation.inputs)
        return reaching
