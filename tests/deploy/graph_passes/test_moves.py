"""Moves: rounding stands on both sides of operations that hand on values, and the outputs keep every bit."""

import pytest
import torch
import torch.nn.functional as F

from lightning_compress.deploy.graph_passes.moves import round_after_moves, round_before_moves
from tests.support.rounded import FORM, OTHER, Function, after, names, rounded

IMAGES = 8 * torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
MOVES = {
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "padded max_pool2d": lambda x: F.max_pool2d(x, 3, 2, 1),
    "flatten": lambda x: x.flatten(1),
    "view": lambda x: x.view(2, -1),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(1, 2),
    "slice": lambda x: x[:, 1:3],
    "select": lambda x: x[:, 0],
    "unsqueeze": lambda x: x.unsqueeze(1),
    "pad": lambda x: F.pad(x, (1, 1)),
    "upsample": lambda x: F.interpolate(x, scale_factor=2.0),
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "shuffle": lambda x: F.pixel_shuffle(x, 2),
    "cat": lambda x: torch.cat([x, x], 1),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_a_moved_value_is_rounded_once_more(move):
    before, result = after(Function(lambda x: move(rounded(x)) * 2.0), [round_after_moves], IMAGES)
    assert names(before)[:2] == ["Q", "D"]
    assert names(result)[-3:] == ["Q", "D", "mul"]
    assert names(result).count("Q") == 2


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_a_value_is_rounded_before_it_moves_to_a_rounding(move):
    _, result = after(Function(lambda x: rounded(move(x * 2.0))), [round_before_moves], IMAGES)
    assert names(result)[:3] == ["mul", "Q", "D"]
    assert names(result)[-2:] == ["Q", "D"]


OTHERS = {
    "softmax": lambda x: x.softmax(1),
    "padding with ones": lambda x: F.pad(x, (1, 1), value=1.0),
    "reflected padding": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "mean": lambda x: x.mean((2, 3)),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "live dropout": lambda x: F.dropout(x, 0.0, training=True),
}


@pytest.mark.parametrize("operation", OTHERS.values(), ids=OTHERS)
def test_other_operations_make_new_values(operation):
    module = Function(lambda x: rounded(operation(rounded(x) * 2.0)))
    before, result = after(module, [round_before_moves, round_after_moves], IMAGES)
    assert names(before) == names(result)


def test_chains_of_moves_are_rounded_at_each():
    module = Function(lambda x: rounded(F.max_pool2d(x * 2.0, 2).flatten(1)))
    _, result = after(module, [round_before_moves, round_after_moves], IMAGES)
    assert names(result) == ["mul", "Q", "D", "max_pool2d", "Q", "D", "flatten", "Q", "D"]


def test_a_concatenation_of_two_grids_is_rounded_to_its_own():
    module = Function(lambda x: rounded(torch.cat([rounded(x, OTHER), x * 2.0], 1), FORM))
    _, result = after(module, [round_before_moves, round_after_moves], IMAGES)
    quantizers = [node.args[1] for node in result.graph.nodes if "quantize_per_tensor.d" in str(node.target)]
    assert quantizers.count(OTHER[0]) == 2
    cat = next(node for node in result.graph.nodes if str(node.target) == "aten.cat.default")
    assert [source.args[1:] for source in cat.args[0]] == [FORM, FORM]


def test_a_value_that_others_read_stays_as_it_is_for_them():
    def forward(x):
        y = (x * 2.0).flatten(1)
        return rounded(y) + y

    before, result = after(Function(forward), [round_before_moves], IMAGES)
    assert names(before) == names(result)


def test_two_grids_that_meet_are_no_grid():
    module = Function(lambda x: torch.cat([rounded(x, OTHER), rounded(x, FORM)], 1) * 2.0)
    before, result = after(module, [round_after_moves], IMAGES)
    assert names(before) == names(result)


def test_relu_keeps_the_grid():
    _, result = after(Function(lambda x: F.relu(rounded(x)) * 2.0), [round_after_moves], IMAGES)
    assert names(result) == ["Q", "D", "relu", "Q", "D", "mul"]
    before, result = after(Function(lambda x: rounded(F.relu(x * 2.0))), [round_before_moves], IMAGES)
    assert names(before) == names(result)  # a runtime computes a ReLU with the layer before it


def test_the_parts_of_a_split_lie_on_the_grid():
    module = Function(lambda x: rounded(x).chunk(2, 1)[1] * 2.0)
    _, result = after(module, [round_after_moves], IMAGES)
    assert names(result)[-3:] == ["Q", "D", "mul"]
