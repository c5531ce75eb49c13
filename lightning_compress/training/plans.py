"""Plans: the refusal of methods that cannot work together or continue a run, and the text that announces each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from lightning_compress.arguments import argument_texts, shown
from lightning_compress.lightnings import (
    DeepSpeedStrategy,
    FSDPStrategy,
    Strategy,
    of_each,
    rank_zero_info,
    rank_zero_warn,
)
from lightning_compress.messages import for_terminal, listed, listed_by_reason
from lightning_compress.processes import is_sharded
from lightning_compress.targets import Selection, Target
from lightning_compress.training.method import names_of

if TYPE_CHECKING:
    from lightning_compress.training.callback import WeightCompression

__all__ = [
    "announce",
    "asked",
    "begin_on",
    "check_adapters",
    "check_callbacks",
    "check_conflicts",
    "check_finished",
    "check_max_norm",
    "check_orders",
    "check_resumed",
    "check_strategy",
    "check_take_up",
    "plan_text",
]


def check_callbacks(callbacks: Sequence[object]) -> None:
    """Refuse a class in the Trainer's list of callbacks, one callback twice, and Lightning's ModelPruning.

    Raises:
        TypeError: a callback is a class, or none at all.
        ValueError: a callback stands twice in the list, or is a ModelPruning. It moves weights to other names, which no
            method compresses.
    """
    for place, callback in enumerate(callbacks):
        if any(callback is other for other in callbacks[:place]):
            name = type(callback).__name__
            raise ValueError(
                f"need each callback once in the Trainer's list, got one {name} twice: leave it out once, or build a "
                f"second {name} with other include= patterns"
            )
        if isinstance(callback, type):
            name = callback.__name__
            raise TypeError(f"need callbacks as objects, got the class {name} in the Trainer's list: write {name}(...)")
        if not isinstance(callback, of_each("callbacks.Callback")):
            raise TypeError(f"need callbacks as objects of Callback, got {shown(callback)} in the Trainer's list")
        if isinstance(callback, of_each("callbacks.ModelPruning")):
            raise ValueError(
                "need PruningCallback to prune beside other methods of this package, got Lightning's ModelPruning in "
                "the Trainer's list: write PruningCallback(sparsity) in its place"
            )


def check_strategy(strategy: Strategy) -> None:
    """Refuse a strategy that moves weights where they cannot be exchanged.

    Raises:
        ValueError: the strategy is FSDP or DeepSpeed.
    """
    if isinstance(strategy, FSDPStrategy | DeepSpeedStrategy):
        raise ValueError(
            "need a single device, DDP or ModelParallelStrategy (FSDP2) to compress weights during training, "
            f"got {type(strategy).__name__}"
        )


def check_orders(methods: Sequence[WeightCompression]) -> None:
    """Refuse a method without a place in the order of projection.

    Raises:
        TypeError: the order is not an integer, or the method has not called ``super().__init__``.
    """
    for method in methods:
        order = getattr(method, "_order", None)
        if type(order) is not int:
            raise TypeError(
                f"need the order of projection of {type(method).__name__} as an integer, got {order!r}: call "
                "super().__init__(order=PRUNE, ...) with PRUNE, SHARE or QUANTIZE of lightning_compress.training, or "
                "an integer between two of them"
            )


def check_conflicts(methods: Sequence[WeightCompression]) -> None:
    """Refuse two methods that cannot project the same weight.

    Raises:
        ValueError: two methods of the same order have a common target, or a method that must be alone has one.
    """
    for method in (method for method in methods if method.alone):
        for other in (other for other in methods if other.order != method.order):
            if names := [name for name in method.targets if name in other.targets]:
                raise ValueError(
                    f"need {type(method).__name__} alone on a weight, got {type(other).__name__} too on "
                    f"{listed(names)}: name them in exclude of one of the two, or fit a second time with "
                    f"{type(other).__name__}"
                )
    owners: dict[tuple[int, str], WeightCompression] = {}
    for method in methods:
        for name in method.targets:
            other = owners.setdefault((method.order, name), method)
            if other is not method:
                raise ValueError(
                    "need callbacks with different places in the order of projection on one weight, got "
                    f"{type(other).__name__} and {type(method).__name__} both on {name!r}, which have the same: make "
                    "their include and exclude patterns disjoint"
                )


def begin_on(method: WeightCompression, module: nn.Module, batch: Any = None) -> Selection:
    """Select the targets of a method in a module, refuse those that it cannot compress, and begin on them.

    Args:
        method: the method.
        module: the module.
        batch: a training batch, for a method that selects by one; None if the method has it already.

    Returns:
        the targets, and the reasons to leave the other parameters alone.

    Raises:
        ValueError: the method cannot compress a target.
    """
    method.batch = method.batch if batch is None else batch
    selection = method.select(module)
    method.batch = None
    for target in selection:
        check_adapters(method, target)
        method.check(target)
    check_max_norm(method, selection)
    method.begin(selection)
    return selection


def asked(method: WeightCompression) -> dict[str, str]:
    """Name -> text of each argument that a resumed run must not change."""
    return {name: text for name, text in argument_texts(method).items() if name not in method.changeable}


def check_resumed(methods: Sequence[WeightCompression], states: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse to continue a run with arguments that ask for something else than it was compressed to.

    Args:
        methods: the methods of the Trainer.
        states: the states of all callbacks in a checkpoint, by ``state_key``.

    Raises:
        ValueError: an argument of a method differs from the checkpoint's, or its patterns do.
    """
    known = {method.state_key for method in methods}
    for method in methods:
        name = type(method).__name__
        if method.state_key in states:
            before, now = states[method.state_key].get("arguments", {}), asked(method)
            changed = [argument for argument in now if before.get(argument, now[argument]) != now[argument]]
            if changed:
                given = ", ".join(f"{argument}={now[argument]}" for argument in changed)
                written = ", ".join(f"{argument}={before[argument]}" for argument in changed)
                raise ValueError(
                    f"need the arguments of the checkpoint to resume {name}, got {given} where it has {written}: "
                    f"resume with {written}, or load the weights alone, with load_compressed, and fit without ckpt_path"
                )
            continue
        others = [key for key in states if key.partition("{")[0] == type(method).__qualname__ and key not in known]
        if others:
            raise ValueError(
                f"need the include and exclude patterns of the checkpoint to resume {name}, got {method.state_key} "
                f"where it has {' and '.join(others)}: resume with those patterns, or load the weights alone, with "
                "load_compressed, and fit without ckpt_path"
            )


def check_adapters(method: WeightCompression, target: Target) -> None:
    """Refuse a weight with adapters where the sum of both cannot be compressed.

    Raises:
        ValueError: the method changes layers, or the weight is sharded over processes.
    """
    if target.path is None:
        return
    if not method.compresses_sums:
        raise ValueError(
            f"need plain layers for {type(method).__name__}, got adapters at {target.path.name!r}: merge them before "
            "fit, with adapters.merge, or name the layer in exclude"
        )
    if is_sharded(target.path.layer):
        raise ValueError(
            f"need whole parameters to compress a weight with its adapters, got shards of {target.name!r}: train on "
            "one device or with strategy='ddp'"
        )


def check_max_norm(method: WeightCompression, selection: Selection) -> None:
    """Refuse an embedding that rescales its rows in every pass, unless the method promises zeros alone.

    Raises:
        ValueError: a target is the weight of an ``nn.Embedding(max_norm=...)``.
    """
    for target in selection if not method.outlives_later_projections else ():
        if getattr(target.module, "max_norm", None) is not None:
            raise ValueError(
                f"need weights that nothing else changes, got {target.name!r} of an embedding with max_norm, which "
                f"rescales its rows in every pass: name it in exclude of {type(method).__name__}, or set max_norm=None"
            )


def check_take_up(
    method: WeightCompression, joining: Sequence[str], replaced: Sequence[str], added: Sequence[str]
) -> bool:
    """Whether a method goes on with other targets, in the middle of a run; warn of weights that it leaves alone.

    Args:
        method: the method.
        joining: names of weights that were frozen when ``fit`` began, and are trained now.
        replaced: names of targets that are other parameters now.
        added: names of weights that the module did not have when ``fit`` began, and that the patterns match.

    Raises:
        ValueError: a target was replaced or a weight was added, and the method cannot go on with it.
    """
    kind = type(method).__name__
    if replaced and not method.takes_up:
        raise ValueError(
            f"need the layers that {kind} compresses until fit ends, got others in place of {listed(replaced)}: "
            "replace them before fit, in configure_model, or name them in exclude"
        )
    if joining and not method.takes_up:
        rank_zero_warn(
            f"{kind} leaves {listed(joining)} alone, which were frozen when fit began and are trained now: name them "
            "in include to compress them from the start"
        )
    if added and not method.takes_up:
        raise ValueError(
            f"need all layers when fit begins for {kind}, got {listed(added)} while it runs: add them before fit, in "
            "configure_model"
        )
    return method.takes_up and bool(joining or replaced or added)


def check_finished(
    methods: Sequence[WeightCompression], fraction: float | None, tell: Callable[[str], None] = rank_zero_warn
) -> None:
    """Tell of methods that have not reached the compression that was asked for.

    Args:
        methods: the methods of a run that has ended.
        fraction: of its length, at which it ended; None if it never began to train.
        tell: takes each message.
    """
    unfinished = [method for method in methods if method.strength < 1.0]
    if unfinished and fraction is None:
        names = names_of(unfinished)
        tell(
            f"{names}: fit trained nothing, since the run was at its end when it began, so no schedule advanced: raise "
            "max_epochs or max_steps of the Trainer, or fit with a new Trainer and without ckpt_path"
        )
    elif fraction is not None:
        for method in unfinished:
            tell(
                f"{type(method).__name__}: the run ended at {fraction:.0%} of its length, before the end of its "
                f"schedule. The model stays at strength {method.strength:.2f} of 1."
            )


def announce(method: WeightCompression, selection: Selection) -> None:
    """Log the plan of a method on rank 0, wrapped to the terminal; arguments are those of :func:`plan_text`."""
    rank_zero_info(for_terminal(plan_text(method, selection)))


def plan_text(method: WeightCompression, selection: Selection) -> str:
    """The targets of a method, and the parameters that it leaves alone with the reason for each."""
    weights, names = sum(target.parameter.numel() for target in selection), [target.name for target in selection]
    lines = [
        f"{type(method).__name__}: {method.describe()}",
        *([f"  {weights:,} weights in {len(names)} tensors: {listed(names)}"] if names else []),
        *(f"  left alone, {line}" for line in listed_by_reason(selection.skipped)),
    ]
    return "\n".join(lines)
