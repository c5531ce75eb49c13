"""Placement: which values to quantize, and which module to hook for each.

The input of every target layer is quantized. A runtime that adds integers fuses an operation only if its inputs and its
output are quantized. For such a runtime the residual branches are quantized too: the output of each convolution (with
its normalization and ReLU) on the way to another target, and the sums of such outputs.

A value is quantized once, where it is produced, so that all its readers see the same integers: by a hook on the
outermost module that returns it. If no module returns it, the hook is on the input of the outermost modules that take
it.

Three passes decide this: *readers* finds the operation of each target, *points* the values to quantize, *hooks* a place
for each value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lightning_compress.quantization.activations.quantizers import Place
from lightning_compress.quantization.dataflow.flow import Dataflow
from lightning_compress.quantization.dataflow.kinds import CONVOLUTIONS, LAYER_OPERATIONS, input_first
from lightning_compress.quantization.dataflow.traces import Operation

__all__ = ["Placement", "place_quantizers"]


@dataclass(frozen=True)
class Placement:
    """The places of the quantizers.

    Attributes:
        places: place -> value (of the trace) that is quantized there.
        missed: targets whose input no hook can reach.
    """

    places: Mapping[Place, int]
    missed: tuple[str, ...]


def place_quantizers(flow: Dataflow, targets: Collection[str], *, round_branches: bool = True) -> Placement:
    """Choose the places of quantizers for a traced forward pass.

    Args:
        flow: of the model.
        targets: names of the layers that shall compute in integers.
        round_branches: whether residual branches are quantized before they are added, and not their sums alone.
    """
    readers = _readers(flow, targets)
    places = _hooks(flow, readers, _points(flow, list(readers.values()), round_branches), targets)
    reached = {flow.source(value) for value in places.values()}
    missed = [name for name in targets if name not in readers or flow.source(readers[name].inputs[0]) not in reached]
    return Placement(places, tuple(missed))


def _readers(flow: Dataflow, targets: Collection[str]) -> dict[str, Operation]:
    """Target -> the operation that reads its weight."""
    return {
        name: input_first(operation)
        for operation in flow.trace.operations
        for name in targets
        if operation.name in LAYER_OPERATIONS and not flow.trace.weights[name].isdisjoint(operation.inputs)
        # An operation inside a target belongs to it, though its weight may be tied to another target's.
        if operation.module == name or operation.module not in targets
    }


def _points(flow: Dataflow, readers: Sequence[Operation], round_branches: bool) -> list[int]:
    """The values to quantize, in the order of their computation."""
    points = {flow.source(operation.inputs[0]) for operation in readers}
    if round_branches:
        upstream = flow.upstream(operation.inputs[0] for operation in readers)
        convolved = (flow.fused(operation) for operation in readers if operation.name in CONVOLUTIONS)
        points.update(value for value in convolved if value in upstream)
        for addition in flow.additions():
            total = flow.clamped(addition.output)
            if total in upstream and all(flow.source(value) in points for value in addition.inputs):
                points.add(total)
    return sorted(points)


def _hooks(
    flow: Dataflow, readers: Mapping[str, Operation], points: Sequence[int], targets: Collection[str]
) -> dict[Place, int]:
    """Place -> value, for each of the points that a hook can reach."""
    calls = flow.trace.calls
    once = {call.module for call in calls} - flow.reused
    # The last module to return a value is the outermost; the model as a whole has the name "".
    outputs = {call.output: call.module for call in calls if call.output != call.input and call.module in once}
    takers: dict[int, set[str]] = defaultdict(set)
    for call in calls:
        if call.module in once | set(targets):
            takers[call.input].add(call.module)
    places: dict[Place, int] = {}
    for point in points:
        if outputs.get(point):
            places[Place(outputs[point], "output")] = point
        else:
            places.update(_inputs(flow, readers, point, takers, targets))
    return places


def _inputs(
    flow: Dataflow,
    readers: Mapping[str, Operation],
    point: int,
    takers: Mapping[int, Collection[str]],
    targets: Collection[str],
) -> dict[Place, int]:
    """The inputs of modules at which ``point`` arrives, moved or not, on its way to each of its readers."""
    places = {}
    for name, operation in readers.items():
        moves = flow.moves(operation.inputs[0])
        for moved in moves if moves[-1] == point else ():  # a convolution may pad its input itself
            module = _outermost(name, takers.get(moved, ()), targets)
            if module is not None:
                places[Place(module, "input")] = moved
                break
    return places


def _outermost(target: str, takers: Collection[str], targets: Collection[str]) -> str | None:
    """The outermost of the modules ``takers`` around a target, except one around all targets: that is the model."""
    around = [name for name in takers if target == name or target.startswith(f"{name}.")]
    whole = [name for name in around if name != target and all(other.startswith(f"{name}.") for other in targets)]
    return min((name for name in around if name and name not in whole), key=len, default=None)
