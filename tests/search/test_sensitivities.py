"""Sensitivities against layers that are compressed by hand, and a proxy that is differentiated by hand."""

import copy
import csv
import io
import json

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from lightning_compress import (
    BinarizationCallback,
    ChannelPruningCallback,
    CompressionBudget,
    CompressionReport,
    LowRankCallback,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
    sensitivity,
)
from lightning_compress.archive import archived_bytes
from lightning_compress.pruning import criteria
from lightning_compress.search import LayerSensitivity, Logged, Mean, OfOutputs, Scored, Sensitivity
from tests.support.runs import state
from tests.support.toys import Residual, build, digits, fit, held_out

LOSS = OfOutputs(F.cross_entropy)
LAYERS = ("net.0.weight", "net.3.weight", "net.9.weight", "net.11.weight")


@pytest.fixture(scope="module")
def trained():
    """A dense model of some epochs."""
    module = build()
    fit(module, max_epochs=8)
    return module


def data(count=200):
    images, labels = digits()
    return images[1400 : 1400 + count], labels[1400 : 1400 + count]


def measured(module, *methods, **options):
    return sensitivity(module, data(), methods=methods, **({"examples": 200, "fisher_examples": 20} | options))


def pruned(weight, sparsity):
    kept = weight.abs().flatten().argsort(descending=True)[: round(weight.numel() * (1 - sparsity))]
    mask = torch.zeros(weight.numel()).index_fill_(0, kept, 1.0).view_as(weight)
    return torch.where(mask == 1, weight, 0.0)


def rounded(weight, bits):
    rows = weight.flatten(1)
    scale = rows.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    return ((rows / scale).round() * scale).view_as(weight)


def of_rank(weight, parameters):
    matrix = weight.flatten(1)
    rank = int(parameters * matrix.numel()) // sum(matrix.shape)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return (left[:, :rank] * values[:rank] @ right[:rank]).view_as(weight)


def binary(weight):
    rows = weight.flatten(1)
    return (rows.abs().mean(1, keepdim=True) * rows.sign()).view_as(weight)


BY_HAND = {
    "zeros": (PruningCallback(0.5), lambda weight: pruned(weight, 0.5)),
    "4 bits": (QATCallback(4, activation_bits=None), lambda weight: rounded(weight, 4)),
    "2 bits, activations ignored": (QATCallback(2), lambda weight: rounded(weight, 2)),
    "binary": (BinarizationCallback(), binary),
    "low rank": (LowRankCallback(0.6, include=("net.3", "net.9")), lambda weight: of_rank(weight, 0.6)),
}


@pytest.mark.parametrize(("method", "project"), BY_HAND.values(), ids=BY_HAND.keys())
def test_metric_and_proxy_by_hand(method, project, trained):
    found = measured(trained, method)
    images, labels = data()
    reference = copy.deepcopy(trained).eval()
    dense = float(F.cross_entropy(reference(images), labels).detach())
    assert found.dense == pytest.approx(dense, rel=1e-5)
    assert found.layers == (("net.3.weight", "net.9.weight") if isinstance(method, LowRankCallback) else LAYERS)
    gradients = []
    for number in range(20):
        loss = F.cross_entropy(reference(images[number : number + 1]), labels[number : number + 1])
        gradients.append(torch.autograd.grad(loss, [reference.get_parameter(name) for name in found.layers]))
    for row, squares in zip(found.rows, zip(*gradients, strict=True), strict=True):
        weight = reference.get_parameter(row.layer).detach()
        projected = project(weight)
        cost = 0.5 * (torch.stack(squares).square().mean(0) * (weight - projected).square()).sum()
        assert row.cost == pytest.approx(float(cost), rel=1e-3)
        slope = (torch.stack(squares).mean(0) * (projected - weight)).sum()
        assert row.first_order == pytest.approx(float(slope), rel=1e-3, abs=1e-5)
        kept = weight.clone()
        weight.copy_(projected)
        loss = float(F.cross_entropy(reference(images), labels).detach())
        weight.copy_(kept)
        assert row.metric == pytest.approx(loss, rel=1e-4)
        assert row.drop == pytest.approx(loss - dense, abs=1e-4)
        assert row.sparsity == pytest.approx(float((projected == 0).float().mean()), abs=1e-6)


def test_the_proxy_of_a_linear_model():
    """Squared errors of a linear model at its minimum: the rise is 1/2 d^T H d, and H is diagonal here."""
    x = torch.eye(4)[torch.arange(40) % 4] * 2
    layer = nn.Linear(4, 1, bias=False)
    targets = x @ torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    layer.weight.data = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    (row,) = sensitivity(
        layer, (x, targets + 1.0), methods=[PruningCallback(0.5)], loss=OfOutputs(F.mse_loss), fisher_examples=40
    ).rows
    # Errors of -1: gradients of 2 * -1 * 2, squared 16, at a quarter of the examples; weights 1 and 2 are gone.
    assert row.cost == pytest.approx(0.5 * 4 * (1 + 4))


def test_values_that_are_shared(trained):
    found = measured(trained, WeightSharingCallback(4), PruningCallback(0.9))
    shared, zeros = (found._of(method) for method in found.methods)
    assert all(row.archive_bytes < 4 * trained.get_parameter(row.layer).numel() / 8 for row in shared[1:])
    weight = pruned(trained.get_parameter("net.9.weight").detach(), 0.9)
    assert found.row("net.9.weight", found.methods[1]).archive_bytes == archived_bytes({"net.9.weight": weight})
    assert [row.sparsity for row in zeros] == pytest.approx([0.9] * 4, abs=0.01)


def test_a_criterion_reads_the_mean_gradient(trained):
    (row,) = measured(trained, PruningCallback(0.5, criterion=criteria.taylor, include=("net.9",))).rows
    module, (images, labels) = copy.deepcopy(trained).eval(), data(20)
    weight = module.net[9].weight
    (gradient,) = torch.autograd.grad(F.cross_entropy(module(images), labels), weight)
    scores = (weight * gradient).abs()
    kept = scores > scores.median()  # the lower one of the two in the middle
    with torch.no_grad():
        weight.mul_(kept)
        images, labels = data()
        assert row.metric == pytest.approx(float(F.cross_entropy(module(images), labels)), rel=1e-5)


def test_a_criterion_reads_the_inputs(trained):
    (row,) = measured(trained, PruningCallback(0.5, criterion=criteria.wanda, include=("net.11",))).rows
    module, (images, labels) = copy.deepcopy(trained).eval(), data()
    with torch.no_grad():
        weight, inputs = module.net[11].weight, module.net[:11](images)
        scores = weight.abs() * inputs.square().mean(0).sqrt()
        weight.mul_(scores > scores.flatten().sort().values[len(scores.flatten()) // 2 - 1])
        assert row.metric == pytest.approx(float(F.cross_entropy(module(images), labels)), rel=1e-4)


def test_channels_of_one_layer(trained):
    found = measured(trained, ChannelPruningCallback(channels=0.5, round_to=1))
    assert found.layers == ("net.0.weight", "net.3.weight", "net.9.weight")  # the channels of the last are outputs
    assert [row.sparsity for row in found.rows] == [0.5, 0.5, 0.5]
    module = copy.deepcopy(trained).eval()
    with torch.no_grad():
        squares = [module.net[9].weight.square().sum(1), module.net[11].weight.square().sum(0)]
        gone = sum(square / square.sum() for square in squares).argsort()[:16]
        module.net[9].weight[gone], module.net[9].bias[gone] = 0.0, 0.0
        images, labels = data()
        assert found.rows[2].metric == pytest.approx(float(F.cross_entropy(module(images), labels)), rel=1e-4)


def test_coupled_channels_are_one_layer():
    module = build(kind=Residual)
    found = measured(module, ChannelPruningCallback(channels=0.5, round_to=4), examples=50, fisher_examples=2)
    assert found.layers == ("net.0.weight", "net.2.conv1.weight", "net.3.weight", "net.9.weight")


def test_a_logged_metric_is_better_when_it_is_larger(trained):
    found = measured(trained, PruningCallback(0.95), metric=Logged("val_acc"), mode="max")
    accuracy = measured(
        trained, PruningCallback(0.95), metric=Scored(MulticlassAccuracy(10, average="micro")), mode="max"
    )
    assert [row.metric for row in found.rows] == pytest.approx([row.metric for row in accuracy.rows])
    assert [row.drop for row in found.rows] == pytest.approx([found.dense - row.metric for row in found.rows])
    assert max(row.drop for row in found.rows) > 0


def test_a_loader_gives_what_the_tensors_give(trained):
    pair = measured(trained, PruningCallback(0.5), examples=397, fisher_examples=5)
    images, labels = digits()
    options = {"methods": [PruningCallback(0.5)], "examples": 397, "fisher_examples": 5}
    loaded = sensitivity(trained, held_out(), **options).rows
    given = sensitivity(trained, (images[1400:], labels[1400:]), **options).rows
    assert [row.metric for row in loaded] == pytest.approx([row.metric for row in given], rel=1e-5)
    assert [row.cost for row in loaded] == [row.cost for row in given]
    assert pair.examples == 200  # of the data that there is
    assert pair.fisher_examples == 5


def test_rank_correlations_against_scipy(trained):
    found = measured(trained, PruningCallback(0.5), PruningCallback(0.9), QATCallback(3))
    costs, drops = ([getattr(row, name) for row in found.rows] for name in ("cost", "drop"))
    assert found.rank_correlation == pytest.approx(spearmanr(costs, drops).statistic)
    by_method = found.rank_correlations
    rows = found._of("PruningCallback(sparsity=0.5)")
    expected = spearmanr([row.cost for row in rows], [row.drop for row in rows]).statistic
    assert by_method["PruningCallback(sparsity=0.5)"] == pytest.approx(expected)


def rows_of(*pairs):
    return tuple(
        LayerSensitivity(str(i), "m", "m", drop, drop, cost, 0.0, 0.0, 1) for i, (cost, drop) in enumerate(pairs)
    )


@pytest.mark.parametrize(
    "pairs", [[(1, 3), (2, 3), (2, 4), (5, 1), (6, 9)], [(1, 1), (1, 2), (1, 3), (2, 0)]], ids=["ties", "many ties"]
)
def test_ties_have_their_mean_rank(pairs):
    found = Sensitivity(rows_of(*pairs), 0.0, "min", 1, 1)
    assert found.rank_correlation == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic, rel=1e-5)


@pytest.mark.parametrize("pairs", [[(1, 2)], [(1, 2), (1, 3)], [(1, float("nan")), (2, 3)]])
def test_no_correlation_where_it_is_not_defined(pairs):
    found = Sensitivity(rows_of(*pairs), 0.0, "min", 1, 1)
    assert found.rank_correlation != found.rank_correlation
    assert found.to_dict()["rank_correlation"] is None
    assert "proxy: none\n" in str(found)
    assert "nan" not in str(found).split("\n\n")[0]


def test_a_method_that_changes_nothing_is_said_to():
    found = Sensitivity(rows_of((1, 0), (2, 0)), 0.0, "min", 1, 1)
    assert "No method changes the metric: weights that are compressed already stay as they are" in str(found)
    assert "No method changes" not in str(Sensitivity(rows_of((1, 0), (2, 1)), 0.0, "min", 1, 1))


def kept_state(module):
    return (
        state(module),
        [part.training for part in module.modules()],
        {key: id(one) for key, one in vars(module).items()},
    )


def unchanged(module, before):
    after = kept_state(module)
    hooks = any(part._forward_pre_hooks or part._forward_hooks for part in module.modules())
    tensors = all(torch.equal(value, before[0][name]) for name, value in after[0].items())
    return tensors and after[0].keys() == before[0].keys() and after[1:] == before[1:] and not hooks


METHODS = (
    PruningCallback(0.9, criterion=criteria.wanda),
    QATCallback(2),
    WeightSharingCallback(4),
    LowRankCallback(0.5),
    ChannelPruningCallback(channels=0.5, round_to=4),
)


def test_nothing_is_changed(trained):
    module = copy.deepcopy(trained)
    module.net[1].eval()
    attributes = [dict(vars(method)) for method in METHODS]
    before, random = kept_state(module), torch.get_rng_state()
    first = measured(module, *METHODS)
    assert unchanged(module, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in module.parameters())
    for method, kept in zip(METHODS, attributes, strict=True):
        assert all(vars(method)[key] is value for key, value in kept.items())
    torch.rand(1)
    assert measured(module, *METHODS).rows == first.rows


class Failing:
    """A metric that fails at a call."""

    def __init__(self, call, error):
        self.left, self.error = call, error

    def __call__(self, module, batches):
        self.left -= 1
        if self.left == 0:
            raise self.error
        return Mean()(module, batches)


@pytest.mark.parametrize("call", [1, 2, 6])
def test_nothing_is_changed_by_an_exception(call, trained):
    module = copy.deepcopy(trained)
    before, random = kept_state(module), torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        measured(module, *METHODS, metric=Failing(call, KeyboardInterrupt()), mode="min")
    assert unchanged(module, before)
    assert torch.equal(torch.get_rng_state(), random)


def test_a_killed_run_goes_on(trained, tmp_path, monkeypatch):
    methods, path = (PruningCallback(0.5), QATCallback(3)), tmp_path / "trials.jsonl"
    whole = measured(trained, *methods)
    calls = []
    own = Mean.__call__

    def counted(self, module, batches):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return own(self, module, batches)

    monkeypatch.setattr(Mean, "__call__", counted)
    with pytest.raises(KeyboardInterrupt):
        measured(trained, *methods, path=path)
    assert len(path.read_text().splitlines()) == 1 + 2  # the dense metric is not a trial
    calls[:] = [0] * 10
    assert measured(trained, *methods, path=path).rows == whole.rows
    assert len(calls) == 10 + 1 + 6
    assert measured(trained, *methods, path=path).rows == whole.rows
    assert len(calls) == 10 + 1 + 6 + 1
    for other in ({"fisher_examples": 10}, {"examples": 100}, {"loss": LOSS}):
        with pytest.raises(ValueError, match=r"need a file of the same run to go on, got trials.jsonl of another"):
            measured(trained, *methods, path=path, **other)
    with pytest.raises(ValueError, match="need a file of the same run"):
        measured(trained, PruningCallback(0.6), QATCallback(3), path=path)
    with pytest.raises(ValueError, match="need a file of the same run"):
        measured(build(), *methods, path=path)


def test_frozen_layers_that_are_named(trained):
    module = copy.deepcopy(trained)
    module.net[9].weight.requires_grad = False
    assert measured(module, PruningCallback(0.5)).layers == tuple(name for name in LAYERS if "9" not in name)
    (row,) = measured(module, PruningCallback(0.5, include=("net.9",))).rows
    (same,) = measured(trained, PruningCallback(0.5, include=("net.9",))).rows
    assert row == LayerSensitivity(**{**vars(same), "method": row.method})
    assert not module.net[9].weight.requires_grad


def test_views(trained):
    methods = [PruningCallback(0.1 * amount) for amount in range(1, 9)]
    found = measured(trained, *methods, BinarizationCallback(include=("net.9",)))
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("rank correlation") == 2
    assert "\n9 BinarizationCallback(include=('net.9',))" in text
    table = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [float(row["metric"]) for row in table] == [row.metric for row in found.rows]
    dictionary = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(dictionary["rows"]) == 33
    assert found._repr_html_().count("<tr>") == 1 + 4 + 1
    left, right = found.draw().axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == list(LAYERS)
    assert [tick.get_text() for tick in right.get_xticklabels()][::8] == ["sparsity=0.1", "Binarization"]


def test_each_layer_goes_to_the_method_that_makes_it_smallest():
    table = [("a", "x", 0.1, 50), ("b", "x", 0.2, 60), ("a", "y", 0.05, 90), ("b", "y", 0.3, 10), ("c", "y", 0.9, 5)]
    rows = (LayerSensitivity(layer, m, m, drop, drop, 0.0, 0.0, 0.0, size) for layer, m, drop, size in table)
    found = Sensitivity(tuple(rows), 0.0, "min", 1, 1)
    assert found.choose(0.25) == {"x": ("a", "b")}
    assert found.choose(0.3) == {"x": ("a",), "y": ("b",)}
    assert found.choose(0.05) == {"y": ("a",)}
    assert found.choose(drop=0.0) == {}
    with pytest.raises(TypeError, match="need drop as a number, got '1 %'"):
        found.choose("1 %")


def test_a_drawing_without_matplotlib_names_the_extra(trained, monkeypatch):
    found = measured(trained, PruningCallback(0.5))
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="lightning-compress\\[plots\\]"):
        found.draw()


def test_no_bar_in_a_pipe(trained, capsys):
    measured(trained, PruningCallback(0.5))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("methods", "options", "error", "said"),
    [
        (PruningCallback(0.5), {}, TypeError, r"need methods as a list of callbacks, got PruningCallback: write \["),
        ([], {}, ValueError, "need at least one method, got none"),
        ([PruningCallback], {}, TypeError, "need callbacks as objects, got the class PruningCallback"),
        ([CompressionReport()], {}, TypeError, "need methods that compress weights, got CompressionReport"),
        ([PruningCallback(0.5)], {"examples": 0}, ValueError, "need examples >= 1"),
        ([PruningCallback(0.5)], {"fisher_examples": 2.5}, TypeError, "need fisher_examples as an integer"),
        ([PruningCallback(0.5)], {"mode": "best"}, ValueError, "need mode 'min' or 'max', got mode='best'"),
        ([PruningCallback(0.5)], {"mode": "max"}, ValueError, "need mode='min' without metric"),
        (
            [PruningCallback(0.5)],
            {"metric": Logged("val_acc")},
            ValueError,
            "need mode='min' or mode='max' with metric",
        ),
        ([PruningCallback(0.5)], {"metric": "val_acc"}, TypeError, "need metric as a function or an object"),
        ([ChannelPruningCallback(0.5, round_to=4)], {}, ValueError, r"need ChannelPruningCallback\(channels=...\)"),
        ([CompressionBudget(bytes=3_000)], {}, ValueError, "need methods with an amount for each layer, got Compress"),
        ([PruningCallback(0.5, include=("head",))], {}, ValueError, "need include patterns that match a parameter"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_refusals(methods, options, error, said, trained):
    with pytest.raises(error, match=said):
        sensitivity(trained, data(), methods=methods, **options)
