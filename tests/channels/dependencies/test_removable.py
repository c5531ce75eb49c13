import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_compress.channels.budget.costs import sizes_of, total_cost
from lightning_compress.channels.dependencies.removable import find_removable
from lightning_compress.channels.dependencies.walk import find_groups
from lightning_compress.channels.groups import mask_, removed_entries
from lightning_compress.channels.removal.surgery import narrow_module_
from lightning_compress.example_inputs import float_outputs
from tests.support.nets import Attention, Dense, Mobile, Residual, Transformer

IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def units(plan):
    return {group.name: (group.units, group.width) for group in plan.groups}


def remove(model, groups, fraction=0.5):
    """Remove the first units of every group; return the outputs with zeros in their place, and without them."""
    removed = {group.name: torch.arange(group.units) < group.units * fraction for group in groups}
    gone = removed_entries(groups, removed)
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        mask_(model.state_dict(), gone)
        masked = float_outputs(model, IMAGES)
        narrow_module_(model, groups, removed)
        return model, masked, float_outputs(model, IMAGES)


@pytest.mark.parametrize("net", [Residual, Dense, Mobile, Transformer])
def test_removal_equals_masking(net):
    torch.manual_seed(0)
    model = net()
    plan = find_removable(model, IMAGES)
    small, masked, narrowed = remove(model, plan.groups)
    for a, b in zip(masked, narrowed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert sum(p.numel() for p in small.parameters()) < 0.7 * sum(p.numel() for p in model.parameters())
    sum(out.sum() for out in float_outputs(small.train(), IMAGES)).backward()


def test_layers_that_are_added_have_coupled_channels():
    plan = find_removable(Residual(), IMAGES)
    assert units(plan) == {"stem": (8, 1), "conv1": (16, 1)} or units(plan) == {"conv2": (8, 1), "conv1": (16, 1)}
    coupled = next(group for group in plan.groups if group.units == 8)
    found = {(part.name, part.dim) for part in coupled.slices}
    assert found == {
        *((name, 0) for name in ("stem.weight", "stem.bias", "conv2.weight")),
        *(
            (f"{norm}.{key}", 0)
            for norm in ("norm", "norm2")
            for key in ("weight", "bias", "running_mean", "running_var")
        ),
        ("conv1.weight", 1),
        ("head.weight", 1),
    }
    assert next(part for part in coupled.slices if part.name == "head.weight").index.shape == (8, 4)  # a flattened map


def test_side_by_side_channels_stay_apart():
    plan = find_removable(Dense(), IMAGES)
    assert units(plan) == {"a": (8, 1), "b": (4, 1), "c": (8, 1)}
    behind = {part.name: part.index for group in plan.groups if group.name == "b" for part in group.slices}
    assert behind["norm.weight"].flatten().tolist() == [8, 9, 10, 11]
    assert behind["c.weight"].flatten().tolist() == [8, 9, 10, 11]


def test_groups_of_a_convolution_shrink_alike():
    plan = find_removable(Mobile(), IMAGES)
    by_name = {part.name: part.index.tolist() for group in plan.groups for part in group.slices if part.role == "out"}
    assert by_name["project.weight"] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert by_name["grouped.weight"] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    small, _, _ = remove(Mobile(), plan.groups)
    assert (small.grouped.in_channels, small.grouped.out_channels, small.grouped.groups) == (4, 4, 2)
    assert (small.depthwise.in_channels, small.depthwise.out_channels, small.depthwise.groups) == (8, 8, 8)


def test_attention_goes_by_heads_and_gates_with_their_partners():
    model = Transformer()
    plan = find_removable(model, IMAGES)
    by_layer = {part.name: group for group in plan.groups for part in group.slices}
    assert by_layer["attention.query.weight"] is by_layer["attention.out.weight"]
    assert (by_layer["attention.query.weight"].units, by_layer["attention.query.weight"].width) == (4, 4)
    gate = next(part for part in by_layer["gate.weight"].slices if part.name == "gate.weight")
    assert gate.index.tolist() == [[i, i + 16] for i in range(16)]
    small, _, _ = remove(model, plan.groups)
    assert small.attention.num_heads == 2
    assert small.attention.query.weight.shape == (8, 16)


def test_layers_left_alone_are_named_with_the_reason():
    left_alone = find_removable(Transformer(), IMAGES).left_alone
    assert left_alone["head"] == "its channels are an output of the model"
    assert "norm1 normalizes over its channels" in left_alone["embed"]


def test_a_wrong_group_is_found_out():
    class Softmax(nn.Sequential):
        def forward(self, x):
            return self[1](torch.softmax(self[0](x), -1))

    plan = find_removable(Softmax(nn.Linear(8, 8), nn.Linear(8, 3)), torch.randn(2, 8))
    assert not plan.groups
    assert "differs from that with zeros" in plan.left_alone["0"]


def test_a_hard_coded_size_is_found_out_and_costs_no_other_layer():
    class Viewed(nn.Sequential):
        def forward(self, x):
            return self[2](torch.relu(self[1](self[0](x).view(-1, 8).relu())))

    plan = find_removable(Viewed(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)), torch.randn(2, 8))
    assert units(plan) == {"1": (8, 1)}
    assert "does not run without them" in plan.left_alone["0"]


def test_a_path_that_hardly_counts_is_tried_as_well():
    class Quiet(Attention):
        """Heads that the module reshapes by a number we do not know of, behind a scale of nearly zero."""

        def __init__(self):
            super().__init__()
            self.parts, self.num_heads, self.scale = 4, None, nn.Parameter(torch.tensor(1e-9))

        def forward(self, x):
            q, k, v = (
                layer(x).unflatten(-1, (self.parts, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
            )
            return x + self.scale * self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    F = nn.functional
    model = nn.Sequential(Quiet(), nn.LayerNorm(16), nn.Linear(16, 3))
    plan = find_removable(model, torch.randn(2, 5, 16))
    assert not plan.groups


def test_the_model_is_left_as_it_was():
    model = Residual().train()
    model.stem.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    find_removable(model, IMAGES)
    assert model.training
    assert not model.stem.weight.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_macs_count_every_position_that_a_weight_is_applied_at():
    model = Residual()
    macs = total_cost(sizes_of(model), find_removable(model, IMAGES).prices)
    assert macs == 64 * (8 * 9 + 16 * 8 * 9 + 8 * 16 * 9) + 3 * 32


def test_an_input_that_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match=r"need an example input that Residual\.forward takes, got \(2, 5\), which raises"
    ):
        find_removable(Residual(), torch.randn(2, 5))


def test_a_model_that_returns_no_tensor_is_refused():
    class Wrapping(Residual):
        def forward(self, images):
            return SimpleNamespace(logits=super().forward(images))

    with pytest.raises(ValueError, match=r"need tensors that depend on the weights in what Wrapping\.forward returns"):
        find_removable(Wrapping(), IMAGES)


class Transposed(nn.Module):
    """A linear layer of another make."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        return x @ self.weight


def test_layers_of_an_unknown_kind_are_named():
    net = nn.Sequential(nn.Linear(4, 6), Transposed(), nn.Linear(6, 3))
    plan = find_removable(net, torch.randn(2, 4))
    assert plan.left_alone["1"] == "it is a Transposed: no layer of torch.nn, and no F.linear reads its weight"
    # A budget of MACs counts them all the same.
    assert total_cost(sizes_of(net), plan.prices) == 4 * 6 + 6 * 6 + 6 * 3


class Unused(nn.Module):
    """Layers that no output depends on, each in a way of its own, beside two that count."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)
        self.never, self.training_alone, self.detached = nn.Linear(8, 8), nn.Linear(16, 4), nn.Linear(16, 16)
        self.read, self.over = nn.Linear(16, 16), nn.LSTM(16, 16)

    def forward(self, x):
        hidden = self.first(x).relu()
        self.detached(hidden).detach()
        hidden = nn.functional.linear(hidden, self.read.weight) + self.over(hidden)[0]
        return (self.last(hidden), self.training_alone(hidden)) if self.training else self.last(hidden)


def test_layers_that_no_output_depends_on_are_named():
    left_alone = find_removable(Unused(), torch.rand(3, 8)).left_alone
    assert {name: left_alone[name] for name in ("never", "training_alone", "detached", "read", "over", "last")} == {
        "never": "forward does not call it in evaluation mode",
        "training_alone": "forward does not call it in evaluation mode",
        "detached": "no output depends on it",
        "read": "forward reads its weight without calling it",
        "over": "it is a LSTM, whose channels stay",
        "last": "its channels are an output of the model",
    }


def test_channels_that_torch_pruning_fails_to_follow_are_left_alone(monkeypatch):
    """It raises for splits and views of some shapes, as in state-space models."""

    def fails(channels, by, end):
        raise IndexError("list index out of range")

    monkeypatch.setattr("lightning_compress.channels.dependencies.graph._shifted", fails)
    plan = find_removable(Gated(-1), IMAGES)
    assert plan.groups == ()
    assert plan.left_alone["gate"].startswith("its channels could not be followed to ")


class Auxiliary(nn.Module):
    """A second head, in training alone, on the channels of the first convolution."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3)
        self.head, self.auxiliary = nn.Linear(16, 10), nn.Linear(8, 10)

    def forward(self, images):
        x = torch.relu(self.first(images))
        logits = self.head(torch.relu(self.second(x)).mean((2, 3)))
        return (logits, self.auxiliary(x.mean((2, 3)))) if self.training else logits


def test_channels_that_training_alone_reads_are_left_alone():
    model, random = Auxiliary(), torch.get_rng_state()
    plan = find_removable(model, IMAGES)
    assert torch.equal(torch.get_rng_state(), random)
    assert units(plan) == {"second": (16, 1)}
    assert plan.left_alone["first"].startswith("the model does not train without them: RuntimeError: mat1 and mat2 sha")


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated")
@pytest.mark.parametrize(
    "computed",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 0.5),
    ],
    ids=["parametrized weight_norm", "weight_norm", "spectral_norm", "mask"],
)
def test_a_computed_weight_is_refused(computed):
    """By its name; a copy of the model would raise another error."""
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(288, 10))
    computed(model[2])
    model(IMAGES)  # the weight has a graph from now on
    with pytest.raises(ValueError, match="need linear layers and convolutions whose weight is a parameter, got '2'"):
        find_removable(model, IMAGES)


class Gated(nn.Module):
    """A layer over sequences whose output is split in halves, or in parts of given sizes, read in another order."""

    def __init__(self, dim, sizes=()):
        super().__init__()
        self.gate = nn.Linear(8, 12)
        self.down, self.other = nn.Linear(6, 3), nn.Linear(4, 3)
        self.dim, self.sizes = dim, sizes

    def forward(self, x):
        x = self.gate(x.flatten(1, 2))
        if not self.sizes:
            a, b = x.chunk(2, dim=self.dim)
            return self.down(torch.relu(a) * b)
        first, second, _ = x.split(self.sizes, dim=self.dim)
        return self.other(torch.relu(second)) + self.down(torch.relu(first))


@pytest.mark.parametrize("dim", [2, -1])
def test_halves_of_the_output_of_a_layer_on_sequences(dim):
    plan = find_removable(Gated(dim), IMAGES)
    assert units(plan) == {"gate": (6, 2)}
    out, bias, into = plan.groups[0].slices
    assert torch.equal(out.index, torch.stack([torch.arange(6), torch.arange(6, 12)], 1))
    assert torch.equal(bias.index, out.index)
    assert (into.name, into.dim) == ("down.weight", 1)


@pytest.mark.parametrize("dim", [2, -1])
def test_pieces_of_the_output_of_a_layer_are_not_mixed_up(dim):
    model = Gated(dim, (6, 4, 2))
    groups, _ = find_groups(model.eval(), lambda module: float_outputs(module, IMAGES))
    found = [{part.name: part.index.flatten().tolist() for part in group.slices} for group in groups]
    assert found == [
        {"gate.weight": [*range(6)], "gate.bias": [*range(6)], "down.weight": [*range(6)]},
        {"gate.weight": [*range(6, 10)], "gate.bias": [*range(6, 10)], "other.weight": [*range(4)]},
        {"gate.weight": [10, 11], "gate.bias": [10, 11]},
    ]
    assert "split_with_sizes expects" in find_removable(model, IMAGES).left_alone["gate"]  # the model names the sizes


class Remembering(Residual):
    """Stores its output, as LeViT stores the biases of its attention in evaluation."""

    def forward(self, x):
        self.seen = super().forward(x)
        return self.seen


def test_a_model_that_stores_its_output_can_be_traced():
    assert units(find_removable(Remembering(), IMAGES, remove_blocks=True)) == units(find_removable(Residual(), IMAGES))
