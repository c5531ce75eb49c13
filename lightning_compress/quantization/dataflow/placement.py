"""Placement: which values to quantize, and which module to hook for each.

The input of every target layer is quantized. A runtime that adds integers fuses an operation only if its inputs and its
output are quantized. For such a runtime the residual branches are quantized too: the output of each convolution (with
its normalization and ReLU) on the way to another target, and the sums of such outputs.

A value is quantized once, where it is produced, so that all its readers see the same integers: by a hook on the
outermost module that returns it. If no module returns it, the hook is on the input of the outermost modules that take
it. A layer that a forward pass uses several times has a hook on its own input, for the values of all its uses.

Three passes decide this: *readers* finds the operations of each target, *points* the values to quantize, *hooks* a
place for each value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lightning_compress.quantization.activations.quantizers import Place
from lightning_compress.quantization.dataflow.flow import Dataflow
from lightning_compress.quantization.dataflow.kinds import CONVOLUTIONS
from lightning_compress.quantization.dataflow.readers import weight_readers
from lightning_compress.quantization.dataflow.traces import Operation

__all__ = ["Placement", "place_quantizers"]


@dataclass(frozen=True)
class Placement:
    """The places of the quantizers.

    Attributes:
        places: place -> the values (of the trace) that are quantized there.
        missed: targets of which no hook can reach every input.
    """

    places: Mapping[Place, Collection[int]]
    missed: tuple[str, ...]


def place_quantizers(flow: Dataflow, targets: Collection[str], *, round_branches: bool = True) -> Placement:
    """Choose the places of quantizers for a traced forward pass.

    Args:
        flow: of the model.
        targets: names of the layers that shall compute in integers.
        round_branches: whether residual branches are quantized before they are added, and not their sums alone.
    """
    readers = {name: weight_readers(flow, name, targets) for name in targets}
    repeated = {name: readers.pop(name) for name in flow.reused.intersection(targets)}
    every = [operation for operations in (*readers.values(), *repeated.values()) for operation in operations]
    points = _points(flow, [operation for of_one in readers.values() for operation in of_one], every, round_branches)
    places = _hooks(flow, readers, points, targets)
    reached = {flow.source(value) for values in places.values() for value in values}
    missed = {
        name
        for name, operations in readers.items()
        if not operations or any(flow.source(operation.inputs[0]) not in reached for operation in operations)
    }
    for name, operations in repeated.items():
        taken = {call.input for call in flow.trace.calls if call.module == name}
        if operations and all(taken.intersection(flow.moves(operation.inputs[0])) for operation in operations):
            places[Place(name, "input")] = taken
        else:
            missed.add(name)
    return Placement(places, tuple(name for name in targets if name in missed))


def _points(
    flow: Dataflow, readers: Sequence[Operation], every: Sequence[Operation], round_branches: bool
) -> list[int]:
    """The values to quantize, in the order of their computation.

    Args:
        flow: of the model.
        readers: operations whose input is quantized where it is produced.
        every: the operations of all targets.
        round_branches: whether residual branches are quantized before they are added.
    """
    points = {flow.source(operation.inputs[0]) for operation in readers}
    if round_branches:
        upstream = flow.upstream(operation.inputs[0] for operation in every)
        convolved = (flow.fused(operation) for operation in every if operation.name in CONVOLUTIONS)
        points.update(value for value in convolved if value in upstream)
        for addition in flow.additions():
            total = flow.clamped(addition.output)
            if total in upstream and all(flow.source(value) in points for value in addition.inputs):
                points.add(total)
    return sorted(points)


def _hooks(
    flow: Dataflow, readers: Mapping[str, Sequence[Operation]], points: Sequence[int], targets: Collection[str]
) -> dict[Place, set[int]]:
    """Place -> values, for each of the points that a hook can reach."""
    calls = flow.trace.calls
    once = {call.module for call in calls} - flow.reused
    # The last module to return a value is the outermost; the model as a whole has the name "".
    outputs = {call.output: call.module for call in calls if call.output != call.input and call.module in once}
    takers: dict[int, set[str]] = defaultdict(set)
    for call in calls:
        if call.module in once:
            takers[call.input].add(call.module)
    places: dict[Place, set[int]] = defaultdict(set)
    for point in points:
        if outputs.get(point):
            places[Place(outputs[point], "output")].add(point)
        else:
            for place, value in _inputs(flow, readers, point, takers, targets):
                places[place].add(value)
    return places


def _inputs(
    flow: Dataflow,
    readers: Mapping[str, Sequence[Operation]],
    point: int,
    takers: Mapping[int, Collection[str]],
    targets: Collection[str],
) -> Iterator[tuple[Place, int]]:
    """The inputs of modules at which ``point`` arrives, moved or not, on its way to each of its readers."""
    for name, operations in readers.items():
        for operation in operations:
            moves = flow.moves(operation.inputs[0])
            for moved in moves if moves[-1] == point else ():  # a convolution may pad its input itself
                module = _outermost(name, takers.get(moved, ()), targets)
                if module is not None:
                    yield Place(module, "input"), moved
                    break


def _outermost(target: str, takers: Collection[str], targets: Collection[str]) -> str | None:
    """The outermost of the modules ``takers`` around a target, except one around all targets: that is the model."""
    around = [name for name in takers if target == name or target.startswith(f"{name}.")]
    whole = [name for name in around if name != target and all(other.startswith(f"{name}.") for other in targets)]
    return min((name for name in around if name and name not in whole), key=len, default=None)
