"""A function of a user's that answers with another kind or shape is named in one line, at the latest at its call."""

import math

import pytest
import torch

from lightning_compress import (
    ChannelPruningCallback,
    CompressionReport,
    DistillationCallback,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
    sensitivity,
)
from lightning_compress.deploy.runtimes import Runtime
from lightning_compress.distillation import Term, losses
from lightning_compress.evidence import reads
from lightning_compress.pruning.patterns import Unstructured
from lightning_compress.schedules import Constant
from tests.support.toys import build, digits, fit, teacher

NOW = {"schedule": Constant()}


def answering(answer):
    """A criterion of any method that reads nothing and gives ``answer``."""
    return reads("nothing")(lambda *_: answer)


class NoUnits(Unstructured):
    def units(self, scores):
        return None


class OneRow(Unstructured):
    def spread(self, kept, shape):
        return kept[:1]


class Written(Unstructured):
    sparsity = "half"


class Unwritten(Runtime):
    """A runtime of which no writer knows."""

    name, package = "mine", "torch"

    def load(self, path):
        raise NotImplementedError

    def operators(self, path):
        raise NotImplementedError


AT_CONSTRUCTION = [
    (lambda: PruningCallback(schedule=lambda t: "1"), r"need schedule\(progress\) to return a number, got '1' from "),
    (lambda: PruningCallback(schedule=lambda t: None), r"need schedule\(progress\) to return a number, got None from "),
    (lambda: PruningCallback(schedule=lambda t: torch.ones(1)), r"to return a number, got tensor\(\[1.\]\) from "),
    (
        lambda: QATCallback(schedule=lambda t: math.nan),
        r"need a schedule with strengths in \[0, 1\] .* gives nan at 0$",
    ),
    (lambda: QATCallback(schedule=lambda t: 2.0), r"need a schedule with strengths in \[0, 1\] .* which gives 2 at 0$"),
    (lambda: Term(losses.mse, schedule=lambda t: None), r"need schedule\(progress\) to return a number, got None from"),
    (lambda: Term(losses.mse, schedule=lambda t: -t), r"need a schedule with strengths in \[0, 1\] .* -0.01 at 0.01$"),
    (lambda: Term(losses.mse, mask=lambda: None), r"need mask\(batch\), got <function .*, which takes other arguments"),
    (lambda: QATCallback(scale=lambda rows, bits: None), "need scale to return a Grid, got None from <lambda>$"),
    (lambda: QATCallback(observer=lambda x, bits: x.max()), r"need observer\(values, bits\) to return two scalar tens"),
    (lambda: QATCallback(observer=lambda x, bits: (-1, 1)), r"need observer\(.* lowest and highest, got \(-1, 1\)$"),
    (
        lambda: QATCallback(observer=lambda x, bits: x.aminmax()[::-1]),
        r"need observer\(values, bits\) to return the lowest value first, got \(tensor\(1.\), tensor\(-1.\)\)$",
    ),
    (lambda: PruningCallback(pattern=Written()), "need pattern.sparsity as a number, got 'half'$"),
]
IN_FIT = [
    (
        lambda: PruningCallback(criterion=lambda w, g: None),
        r"need criterion\(weight, evidence\) to return a tensor, got",
    ),
    (
        lambda: PruningCallback(criterion=lambda w, g: g.sum()),
        r"need a criterion that gives scores of the weight's shape",
    ),
    (lambda: PruningCallback(criterion=answering("x"), **NOW), r"need criterion\(weight, evidence\) .* got 'x' from"),
    (
        lambda: PruningCallback(pattern=NoUnits(), **NOW),
        r"need pattern.units\(scores\) to return a tensor, got None fr",
    ),
    (
        lambda: PruningCallback(pattern=OneRow(), **NOW),
        r"need pattern.spread\(kept, shape\) to return a tensor of shape",
    ),
    (
        lambda: ChannelPruningCallback(criterion=answering(None), round_to=2, **NOW),
        r"need criterion\(members\) to return a tensor, got None from ",
    ),
    (
        lambda: ChannelPruningCallback(latency=0.5, runtime=lambda module, example: None),
        r"need runtime\(module, example\) to return a function, got None from ",
    ),
    (
        lambda: ChannelPruningCallback(latency=0.5, runtime=Unwritten()),
        r"need a runtime that a writer of this package names, got Unwritten\(\): give runtime= a function",
    ),
    (lambda: WeightSharingCallback(init=lambda v, k: None, **NOW), r"need init\(values, clusters\) to return a tensor"),
    (lambda: WeightSharingCallback(init=lambda v, k: v[:1], **NOW), r"need init\(.* of shape \(16,\), got \(1,\) from"),
    (
        lambda: WeightSharingCallback(init=lambda v, k: v[:k].flip(0), **NOW),
        r"need init\(values, clusters\) to return finite centers in ascending order, got others$",
    ),
    (
        lambda: WeightSharingCallback(gradient=lambda sums, sizes: sums[:1], **NOW),
        r"need gradient\(sums, sizes\) to return a tensor of shape \(17,\), got \(1,\) from ",
    ),
    (
        lambda: DistillationCallback(teacher(), network="net", losses=[lambda student, teacher: 1.0]),
        r"need loss\(student, teacher\) to return a tensor, got 1.0 from ",
    ),
    (
        lambda: DistillationCallback(teacher(), network="net", losses=[lambda student, teacher: student - teacher]),
        r"need loss\(student, teacher\) to return a tensor of one number, got one of shape \(32, 10\) from ",
    ),
    (
        lambda: DistillationCallback(teacher(), network="net", losses=[Term(losses.mse, mask=lambda batch: None)]),
        r"need mask\(batch\) to return a tensor, got None from ",
    ),
]


def in_a_line(error):
    return len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(("use", "answer"), AT_CONSTRUCTION, ids=[answer for _, answer in AT_CONSTRUCTION])
def test_at_construction(use, answer):
    with pytest.raises((TypeError, ValueError), match=answer) as error:
        use()
    assert in_a_line(error)


@pytest.mark.parametrize(("callback", "answer"), IN_FIT, ids=[answer for _, answer in IN_FIT])
def test_in_the_first_steps(callback, answer):
    with pytest.raises((TypeError, ValueError), match=answer) as error:
        fit(build(), callback(), max_steps=2, limit_val_batches=0)
    assert in_a_line(error)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"loss": lambda module, batch: 1.0}, r"need loss\(module, batch\) to return a tensor, got 1.0 from "),
        (
            {"metric": lambda module, batches: "x", "mode": "min"},
            r"need metric\(module, batches\) to return a number, ",
        ),
    ],
)
def test_of_a_sensitivity(arguments, answer):
    images, labels = digits()
    with pytest.raises(TypeError, match=answer) as error:
        sensitivity(build(), (images[:4], labels[:4]), methods=[PruningCallback(0.5)], **arguments)
    assert in_a_line(error)


def test_two_reports_in_one_trainer(tmp_path):
    with pytest.raises(
        ValueError, match="need one CompressionReport in a Trainer, got 2: one writes all formats"
    ) as error:
        fit(build(), CompressionReport(tmp_path / "a"), CompressionReport(tmp_path / "b"), max_steps=1)
    assert in_a_line(error)
