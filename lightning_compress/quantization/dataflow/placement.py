"""Placement: which values to quantize, and which module to hook for each.

The input of every target layer is quantized. The profile of the runtime decides on other values. A runtime
that adds integers fuses an operation only if its inputs and its output are quantized. For such a runtime the residual
branches are quantized too: the output of each convolution (with its normalization and ReLU) on the way to another
target, and the sums of such outputs. A runtime whose layers write integers needs the output of every target quantized.

A value is quantized once, where it is produced, so that all its readers see the same integers: by a hook on the
outermost module that returns it. If no module returns it, the hook is on the input of the outermost modules that take
it. A layer that a forward pass uses several times has a hook on its own input, for the values of all its uses.

Three passes decide this: *readers* finds the operations of each target, *points* the values to quantize, *hooks* a
place for each value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lightning_compress.quantization.activations.quantizers import Place
from lightning_compress.quantization.dataflow.flow import Dataflow
from lightning_compress.quantization.dataflow.kinds import CONVOLUTIONS
from lightning_compress.quantization.dataflow.readers import sole_readers, weight_readers
from lightning_compress.quantization.dataflow.traces import Operation
from lightning_compress.quantization.profiles import Profile

__all__ = ["Placement", "place_quantizers"]


@dataclass(frozen=True)
class Placement:
    """The places of the quantizers.

    Attributes:
        places: place -> the values (of the trace) that are quantized there.
        missed: targets of which no hook can reach every input, or the output where the profile needs it.
    """

    places: Mapping[Place, Collection[int]]
    missed: tuple[str, ...]


def place_quantizers(flow: Dataflow, targets: Collection[str], profile: Profile) -> Placement:
    """Choose the places of quantizers for a traced forward pass.

    Args:
        flow: of the model.
        targets: names of the layers that shall compute in integers.
        profile: of the runtime that the model is trained for.
    """
    if profile.dynamic_activations:
        return _of_rows(flow, targets)
    readers = {name: weight_readers(flow, name, targets) for name in targets}
    repeated = {name: readers.pop(name) for name in flow.reused.intersection(targets)}
    every = [operation for operations in (*readers.values(), *repeated.values()) for operation in operations]
    points = _points(flow, [operation for of_one in readers.values() for operation in of_one], every, profile)
    places = _hooks(flow, readers, points, targets)
    reached = {flow.source(value) for values in places.values() for value in values}
    missed = {
        name
        for name, operations in readers.items()
        if not operations or any(not _needs(flow, operation, profile) <= reached for operation in operations)
    }
    for name, operations in repeated.items():
        taken = {call.input for call in flow.trace.calls if call.module == name}
        if operations and all(taken.intersection(flow.moves(operation.inputs[0])) for operation in operations):
            places[Place(name, "input")] = taken
            if profile.round_outputs:
                places[Place(name, "output")] = {call.output for call in flow.trace.calls if call.module == name}
        else:
            missed.add(name)
    return Placement(places, tuple(name for name in targets if name in missed))


def _of_rows(flow: Dataflow, targets: Collection[str]) -> Placement:
    """The inputs of the linear layers among the targets; all readers of a value round its rows alike."""
    alone = sole_readers(flow)
    readers = {name: weight_readers(flow, name, targets) for name in targets}
    convolutions = {name for name, found in readers.items() if any(one.name in CONVOLUTIONS for one in found)}
    linear = [name for name in targets if name not in convolutions]
    taken = {name: {call.input for call in flow.trace.calls if call.module == name} for name in linear}
    places = {Place(name, "input"): values for name, values in taken.items() if name in alone}
    return Placement(places, tuple(name for name in linear if name not in alone))


def _needs(flow: Dataflow, operation: Operation, profile: Profile) -> set[int]:
    """The values around the operation of a target that have to be quantized."""
    return {flow.source(operation.inputs[0])} | ({flow.fused(operation)} if profile.round_outputs else set())


def _points(flow: Dataflow, readers: Sequence[Operation], every: Sequence[Operation], profile: Profile) -> list[int]:
    """The values to quantize, in the order of their computation.

    Args:
        flow: of the model.
        readers: operations whose input is quantized where it is produced.
        every: the operations of all targets.
        profile: of the runtime.
    """
    points = {flow.source(operation.inputs[0]) for operation in readers}
    if profile.round_branches:
        points |= _branches(flow, points, every, profile.fuse_additions)
    if profile.round_outputs:
        points.update(flow.fused(operation) for operation in every)
    return sorted(points)


def _branches(flow: Dataflow, inputs: Collection[int], every: Sequence[Operation], fuse_additions: bool) -> set[int]:
    """The values of residual branches, and their sums, on the way to another target.

    Args:
        flow: of the model.
        inputs: of the targets.
        every: the operations of all targets.
        fuse_additions: whether the convolution in front of an addition computes it.
    """
    upstream = flow.upstream(operation.inputs[0] for operation in every)
    convolved = {flow.fused(operation) for operation in every if operation.name in CONVOLUTIONS} & upstream
    points, in_kernels = convolved.union(inputs), set()
    for addition in flow.additions():
        total = flow.clamped(addition.output)
        if total in upstream and all(flow.source(value) in points for value in addition.inputs):
            points.add(total)
            alone = (value for value in addition.inputs if flow.only_consumer(value) is addition)
            in_kernels.update([value for value in alone if value in convolved][:fuse_additions])
    return points - in_kernels


def _hooks(
    flow: Dataflow, readers: Mapping[str, Sequence[Operation]], points: Sequence[int], targets: Collection[str]
) -> dict[Place, set[int]]:
    """Place -> values, for each of the points that a hook can reach."""
    calls = flow.trace.calls
    once = {call.module for call in calls} - flow.reused
    # The last module to return a value is the outermost; the model as a whole has the name "".
    outputs = {call.output: call.module for call in calls if call.output != call.input and call.module in once}
    inner = {call.output: call.module for call in calls if call.module and call.module in once}
    takers: dict[int, set[str]] = defaultdict(set)
    for call in calls:
        if call.module in once:
            takers[call.input].add(call.module)
    arrivals: dict[int, list[tuple[str, list[int]]]] = defaultdict(list)
    for name, operations in readers.items():
        for operation in operations:
            moves = flow.moves(operation.inputs[0])
            arrivals[moves[-1]].append((name, moves))
    places: dict[Place, set[int]] = defaultdict(set)
    for point in points:
        if outputs.get(point):
            places[Place(outputs[point], "output")].add(point)
            continue
        taken = list(_inputs(arrivals.get(point, ()), takers, targets))
        for place, value in taken:
            places[place].add(value)
        if not taken and point in inner:
            places[Place(inner[point], "output")].add(point)
    return places


def _inputs(
    arrivals: Iterable[tuple[str, Sequence[int]]], takers: Mapping[int, Collection[str]], targets: Collection[str]
) -> Iterator[tuple[Place, int]]:
    """The inputs of modules at which a point arrives, moved or not, on its way to each of its readers.

    Args:
        arrivals: the target of each reader, and the values that the point becomes on its way, the last move first.
        takers: value -> the modules that take it.
        targets: names of all targets.
    """
    for name, moves in arrivals:
        for moved in moves:  # a convolution may pad its input itself
            module = _outermost(name, takers.get(moved, ()), targets)
            if module is not None:
                yield Place(module, "input"), moved
                break


def _outermost(target: str, takers: Collection[str], targets: Collection[str]) -> str | None:
    """The outermost of the modules ``takers`` around a target, except one around all targets: that is the model."""
    around = [name for name in takers if target == name or target.startswith(f"{name}.")]
    whole = [name for name in around if name != target and all(other.startswith(f"{name}.") for other in targets)]
    return min((name for name in around if name and name not in whole), key=len, default=None)
