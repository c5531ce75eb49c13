"""The cases of the contract: every public callback in its variants, alone and together, and what each is able to do."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import pytest

from lightning_compress import (
    NM,
    BinarizationCallback,
    Block,
    ChannelPruningCallback,
    CompressionBudget,
    CompressionReport,
    DistillationCallback,
    LowRankCallback,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
)
from lightning_compress.distillation import EMA
from lightning_compress.pruning import criteria
from lightning_compress.quantization import MixedBits, observers, profiles, scales
from lightning_compress.schedules import Constant, Cubic, Linear
from lightning_compress.sharing import gradients, initial_centers
from tests.support.promises import (
    Promise,
    all_of,
    at_least,
    at_most_two_of_four,
    binary,
    bits_on_average,
    file_of,
    half_the_macs,
    half_the_macs_of_all_entries,
    integers,
    low_rank,
    merged,
    narrow,
    nothing,
    sparsity,
    tiles,
    two_of_four,
    values,
    whole_channels,
    without_block,
)
from tests.support.toys import Adapted, Digits, LoRA, Residual, teacher

__all__ = ["CASES", "Case", "cases", "cases_in_turn"]

STEM = ("net.0",)
RAMP = Linear(0.1, 0.6)  # of 36 steps: begins at 4, done at 22
REPORTS = tempfile.TemporaryDirectory()
WHOLE = "need whole parameters to compress a weight with its adapters"
ZEROS = "channels stay as zeros, because parameters that ModelParallelStrategy shards cannot change"


@dataclass(frozen=True)
class Case:
    """Callbacks for one Trainer, and what must hold of the weights after ``fit``.

    Args:
        callbacks: makes new ones.
        promise: fails on a module that does not hold what was asked.
        kind: the model.
        plain: a plain load of a checkpoint computes what was validated; quantized activations need more than weights.
        keeps_shapes: tensors have the same shapes after ``fit`` as before.
        fsdp2: a part of the refusal before training, or of the notice, where the promise does not hold of parameters
            that FSDP2 shards; empty where it holds.
    """

    callbacks: Callable[[], list[L.Callback]]
    promise: Promise
    kind: type[Digits] = Digits
    plain: bool = True
    keeps_shapes: bool = True
    fsdp2: str = ""


def qat(*bits: int | MixedBits, **options) -> QATCallback:
    return QATCallback(*bits, **({"every_n_steps": 3} | options))


def pruning(*amount: float, **options) -> PruningCallback:
    return PruningCallback(*amount, **({"schedule": RAMP, "every_n_steps": 3} | options))


def channels(macs: float = 0.5, **options) -> ChannelPruningCallback:
    return ChannelPruningCallback(macs, **({"round_to": 4, "schedule": RAMP, "every_n_steps": 3} | options))


def sharing(**options) -> WeightSharingCallback:
    return WeightSharingCallback(8, **({"schedule": RAMP, "every_n_steps": 3} | options))


CASES = {
    "pruning": Case(lambda: [pruning(0.9)], sparsity(0.9)),
    "pruning by taylor in layers": Case(
        lambda: [pruning(0.8, criterion=criteria.taylor, scope="layer")], sparsity(0.8)
    ),
    "pruning by wanda": Case(lambda: [pruning(0.8, criterion=criteria.wanda)], sparsity(0.8)),
    "pruning with regrowth": Case(lambda: [pruning(0.9, regrow=True)], sparsity(0.9)),
    "pruning at once": Case(lambda: [PruningCallback(0.9, schedule=Constant(), gradient_scale=2.0)], sparsity(0.9)),
    "2:4": Case(lambda: [PruningCallback(pattern=NM(2, 4), schedule=RAMP, exclude=STEM)], two_of_four),
    "tiles": Case(
        lambda: [PruningCallback(0.8, pattern=Block(2, 4), schedule=RAMP, exclude=STEM)],
        tiles,
        fsdp2="need a matrix that blocks of 2 x 4 fill .* got 'a shard of net.11.weight' as 5 x 32",
    ),
    "two rules": Case(
        lambda: [
            PruningCallback(0.5, schedule=RAMP, include=("net.0", "net.3")),
            PruningCallback(0.9, schedule=Cubic(0.2, 0.7), include=("net.9", "net.11")),
        ],
        sparsity(0.9, "net.0.weight", "net.3.weight"),
    ),
    "sharing": Case(lambda: [sharing()], values(8)),
    "sharing at once": Case(
        lambda: [
            WeightSharingCallback(8, schedule=Constant(), init=initial_centers.plus_plus, gradient=gradients.summed)
        ],
        values(8),
    ),
    "pruning and sharing": Case(
        lambda: [WeightSharingCallback(8, schedule=Linear(0.1, 0.5), every_n_steps=4), pruning(0.9)],
        all_of(sparsity(0.9), values(8)),
    ),
    "regrowth and sharing": Case(
        lambda: [
            PruningCallback(0.9, schedule=Linear(0.1, 0.5), every_n_steps=2, regrow=True),
            WeightSharingCallback(8, schedule=RAMP, every_n_steps=5),
        ],
        all_of(sparsity(0.9), values(8)),
    ),
    "masked channels": Case(lambda: [channels(remove=False)], all_of(half_the_macs, whole_channels)),
    "removed channels": Case(
        lambda: [channels()], all_of(half_the_macs, narrow), plain=False, keeps_shapes=False, fsdp2=ZEROS
    ),
    "removed blocks": Case(
        lambda: [channels(0.15, remove_blocks=True)],
        without_block,
        kind=Residual,
        plain=False,
        keeps_shapes=False,
        fsdp2=ZEROS,
    ),
    "removed channels of 8 bits": Case(
        lambda: [channels(), qat()], all_of(narrow, integers), plain=False, keeps_shapes=False, fsdp2=ZEROS
    ),
    "low rank": Case(
        lambda: [LowRankCallback(schedule=RAMP, every_n_steps=3)],
        low_rank,
        plain=False,
        keeps_shapes=False,
        fsdp2="layers stay whole, because parameters that ModelParallelStrategy shards cannot change",
    ),
    "low rank, layers left whole": Case(
        lambda: [LowRankCallback(split=False, schedule=RAMP, every_n_steps=3)], low_rank
    ),
    "budget of bytes": Case(
        lambda: [CompressionBudget(bytes=4000, schedule=RAMP, every_n_steps=3)],
        file_of(4000),
        fsdp2="need whole parameters to measure the file",
    ),
    "budget of bytes and MACs": Case(
        lambda: [CompressionBudget(bytes=3000, macs=0.5, round_to=4, schedule=RAMP, every_n_steps=3)],
        all_of(half_the_macs_of_all_entries, file_of(3000, least=0.5)),  # of one step: chosen for the wide model
        plain=False,
        keeps_shapes=False,
        fsdp2="need whole parameters to measure the file",
    ),
    "8 bits": Case(lambda: [qat()], integers, plain=False),
    "8 bits with a range for each row": Case(lambda: [qat(profile=profiles.Dynamic())], integers, plain=False),
    "4 bits of learned ranges": Case(
        lambda: [QATCallback(4, activation_bits=4, observer=observers.mse, range_lr=0.02, every_n_steps=2)],
        integers,
        plain=False,
    ),
    "4-bit weights": Case(lambda: [qat(4, activation_bits=None, scale=scales.mse, schedule=RAMP)], integers),
    "3 bits on average": Case(
        lambda: [qat(MixedBits(3), activation_bits=None, scale=scales.mse, schedule=RAMP)], bits_on_average(3, 2.8)
    ),
    "binary weights": Case(lambda: [BinarizationCallback(every_n_steps=3)], binary),
    "8 bits of 2:4": Case(
        lambda: [qat(), PruningCallback(pattern=NM(2, 4), schedule=RAMP, exclude=STEM)],
        all_of(integers, at_most_two_of_four),
        plain=False,
    ),
    "2:4 with adapters": Case(
        lambda: [PruningCallback(pattern=NM(2, 4), schedule=RAMP, exclude=STEM)],
        merged(two_of_four),
        kind=Adapted,
        fsdp2=WHOLE,
    ),
    "8 bits of LoRA": Case(
        lambda: [qat(), pruning(0.5)],
        merged(all_of(integers, at_least(0.5))),
        kind=LoRA,
        plain=False,
        fsdp2=WHOLE,
    ),
    "taught": Case(lambda: [DistillationCallback(teacher(), alpha=0.5)], nothing),
    "taught by an average and pruned": Case(
        lambda: [DistillationCallback(EMA(0.9), alpha=0.5), pruning(0.9)],
        sparsity(0.9),
        fsdp2="need a student with whole parameters to teach it by its average",
    ),
    "report of pruning": Case(lambda: [CompressionReport(REPORTS.name), pruning(0.9)], sparsity(0.9)),
}


def cases(applies: Callable[[Case], bool] = lambda case: True) -> Any:
    """The cases that a promise applies to, as the argument ``case`` of a test; each is named in a failure."""
    chosen = {name: case for name, case in CASES.items() if applies(case)}
    return pytest.mark.parametrize("case", chosen.values(), ids=chosen.keys())


def cases_in_turn(name: str, values: Sequence[Any]) -> Any:
    """All cases as the argument ``case`` of a test, and with each of them one of the values, in turn, as another."""
    rows = [pytest.param(case, values[i % len(values)], id=key) for i, (key, case) in enumerate(CASES.items())]
    return pytest.mark.parametrize(("case", name), rows)
