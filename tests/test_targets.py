import pytest
import torch
from torch import nn

from lightning_compress.targets import select


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.zeros(5, 4))
        self.scale = nn.Parameter(torch.zeros(4))
        self.embedding = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm((3, 4))
        self.attention = nn.MultiheadAttention(4, 2)
        self.recurrent = nn.LSTM(4, 3)
        self.encoder = nn.Sequential(nn.Conv1d(4, 4, 3), nn.BatchNorm1d(4), nn.Linear(4, 7))
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight


def names(*args, **kwargs):
    return {target.name for target in select(Custom(), *args, **kwargs)}


WEIGHTS = {
    "embedding.weight",
    "attention.in_proj_weight",
    "attention.out_proj.weight",
    "recurrent.weight_ih_l0",
    "recurrent.weight_hh_l0",
    "encoder.0.weight",
    "encoder.2.weight",
}


def test_weights_of_layers_by_default():
    selection = select(Custom())
    assert {target.name for target in selection} == WEIGHTS
    assert selection.skipped["norm.weight"] == "normalization"
    assert selection.skipped["encoder.1.weight"] == "normalization"
    assert selection.skipped["encoder.2.bias"] == "bias or vector"
    assert selection.skipped["position"] == "of a module of your own: name it in include"


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_weights_of_recurrent_cells(cell):
    assert {target.name for target in select(cell(4, 3))} == {"weight_ih", "weight_hh"}


def test_a_tied_weight_is_one_target_with_two_names():
    (target,) = select(Custom(), include=("head.weight",))
    assert target.aliases == ("embedding.weight", "head.weight")
    assert target.module_name == "embedding"


def test_patterns_match_parameters_and_modules():
    assert names(include=("encoder.*",)) == {"encoder.0.weight", "encoder.2.weight"}
    assert names(include=("encoder.2",)) == {"encoder.2.weight"}
    assert names(exclude=("recurrent", "attention*")) == {w for w in WEIGHTS if w[0] not in "ra"}
    assert names(include=("*.weight",), exclude=("e*",)) == {"attention.out_proj.weight"}


def test_a_named_parameter_of_a_custom_module_is_a_target():
    assert names(include=("position",)) == {"position"}


def test_every_parameter_is_target_or_explained():
    selection = select(Custom(), exclude=("encoder.*",))
    assert {t.name for t in selection} | selection.skipped.keys() == dict(Custom().named_parameters()).keys()


@pytest.mark.parametrize("argument", ["include", "exclude"])
def test_a_pattern_without_match_lists_what_there_is(argument):
    with pytest.raises(ValueError, match=rf"need {argument} patterns .* got 'decoder\.\*'; there are: position"):
        select(Custom(), **{argument: ("decoder.*",)})


def test_lazy_parameters_are_named():
    """Without a shape a weight would pass for a bias and be left alone."""
    module = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"got lazy ones: 0\.weight, 0\.bias; run the module once"):
        select(module)
    module(torch.zeros(1, 3))
    assert len(select(module)) == 2


def test_nothing_left():
    with pytest.raises(ValueError, match=r"^.*to leave a weight to compress, got none: .*bias or vector: scale.*$"):
        select(Custom(), include=("scale",))


def test_one_string_is_no_sequence():
    with pytest.raises(TypeError, match=r"need include as a sequence of patterns, got 'encoder': write \('encoder',\)"):
        select(Custom(), include="encoder")


def test_integer_weights_are_left_alone():
    module = nn.Linear(2, 2)
    module.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="not floating point"):
        select(module)


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated")
@pytest.mark.parametrize("include", [("*",), ("*", "0.*")])
@pytest.mark.parametrize(
    "normed",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.5),
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
    ],
    ids=["weight_norm", "spectral_norm", "mask", "parametrized weight_norm", "parametrized spectral_norm"],
)
def test_what_a_weight_is_computed_from_is_left_alone(normed, include):
    """Zeros and grids of it would not be those of the weight."""
    selection = select(nn.Sequential(normed(nn.Linear(4, 3)), nn.Linear(3, 2)), include)
    assert [target.name for target in selection] == ["1.weight"]
    reasons = [reason for name, reason in selection.skipped.items() if "bias" not in name]
    assert reasons
    assert all("remove the parametrization first" in reason for reason in reasons)


class Standardized(nn.Conv2d):
    """Weight standardization, as in networks with group normalization."""

    def forward(self, x):
        weight = self.weight
        mean, std = weight.mean((1, 2, 3), keepdim=True), weight.std((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, (weight - mean) / (std + 1e-5), self.bias, self.stride, self.padding)


class StandardizedInside(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Equalized(nn.Linear):
    """A weight times a constant has the same zeros."""

    def forward(self, x):
        return nn.functional.linear(x, self.weight * 0.1, self.bias)


class Padding(nn.Conv2d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (Standardized(4, 3, 3, stride=2, dilation=2), False),
        (StandardizedInside(4, 3, 3), False),
        (Equalized(4, 3), True),
        (Padding(4, 3, 3), True),
        (nn.Conv2d(4, 3, 3), True),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_whose_kernel_has_other_zeros_is_left_alone(layer, expected):
    net = nn.Sequential(layer, nn.Linear(3, 2))
    state, random = {k: v.clone() for k, v in layer.state_dict().items()}, torch.get_rng_state()
    selection = select(net, ("*", "0"))
    assert ("0.weight" in {target.name for target in selection}) == expected
    assert expected or "weight standardization" in selection.skipped["0.weight"]
    assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_weight_without_elements_is_left_alone():
    """A layer for extra features, of which this data set has none."""
    selection = select(nn.Sequential(nn.Linear(0, 2), nn.Linear(2, 2)), ("*", "0"))
    assert [target.name for target in selection] == ["1.weight"]
    assert selection.skipped["0.weight"] == "it has no elements"


class Pair(nn.Module):
    is_one_layer = True

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 2, bias=False), nn.Linear(2, 4)


@pytest.mark.parametrize("pattern", ["1", "1.weight", "1.first", "1.first.weight"])
def test_patterns_match_the_name_of_a_layer_that_consists_of_several(pattern):
    net = nn.Sequential(nn.Linear(4, 4), Pair())
    included = [target.name for target in select(net, include=(pattern,))]
    expected = ["1.first.weight", "1.second.weight"] if pattern in ("1", "1.weight") else ["1.first.weight"]
    assert included == expected
    assert all(target.layer == "1" for target in select(net, include=(pattern,)))
    assert [target.name for target in select(net, exclude=("1",))] == ["0.weight"]
