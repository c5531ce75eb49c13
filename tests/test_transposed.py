"""GPT-2 of transformers: its layers, whose weights are ``(in, out)``, are treated as the linear layers they are."""

import pytest
import torch
from torch import nn

from lightning_compress import NM, Block, ChannelPruningCallback, PruningCallback, WeightSharingCallback, export
from lightning_compress.archive import inspect_archive
from lightning_compress.channels.dependencies.removable import find_removable
from lightning_compress.channels.zero_channels import remove_zero_channels
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.loading import load_compressed
from lightning_compress.lowering.modules import lower
from lightning_compress.macs import count_macs
from lightning_compress.pruning import criteria
from lightning_compress.quantization import BinarizationCallback, QATCallback, scales
from lightning_compress.quantization.activations.biases import round_bias_
from lightning_compress.quantization.granularities import PerChannel, PerGroup
from lightning_compress.quantization.weights import grids_of
from lightning_compress.schedules import Linear
from lightning_compress.targets import is_transposed, select
from tests.support import gpt2
from tests.support.distributed import run_distributed
from tests.support.gpt2 import GPT2, Conv1D, batches, build, sequences, turned, with_linear_layers
from tests.support.runs import resumes, same, trainer, uninterrupted
from tests.support.shards import fsdp2, gathered, sharded

SOON = Linear(0.1, 0.5)
TOKENS = sequences()[:4]
LAYERS = [f"h.{block}.{name}" for block in (0, 1) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")]
IN_BLOCKS = {"include": ("h.*",)}


def fit(module, *callbacks, ckpt_path=None, **options):
    run = trainer(*callbacks, **options)
    run.fit(module, batches(), ckpt_path=ckpt_path)
    return run


def test_only_layers_of_that_kind_are_taken_for_it():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3, 2))

    convolution = type("Conv1D", (nn.Conv1d,), {})
    layers = [nn.Linear(2, 3), convolution(2, 3, 1), type("Conv1D", (Own,), {})()]
    assert not any(map(is_transposed, layers))
    assert is_transposed(type("Sharded", (Conv1D,), {})(3, 2))
    chosen = {target.name: target for target in select(build())}
    assert {f"{name}.weight" for name in LAYERS} < chosen.keys()
    assert chosen["h.0.mlp.c_fc.weight"].shape == (64, 16)
    assert chosen["lm_head.weight"].shape == (12, 16)


METHODS = {
    "magnitude": lambda: PruningCallback(0.5),
    "a threshold for each layer": lambda: PruningCallback(0.5, criterion=criteria.random, scope="layer"),
    "n of m inputs": lambda: PruningCallback(pattern=NM(1, 4), **IN_BLOCKS),
    "tiles by taylor": lambda: PruningCallback(0.7, criterion=criteria.taylor, pattern=Block(2, 8), **IN_BLOCKS),
    "n of m inputs by wanda": lambda: PruningCallback(criterion=criteria.wanda, pattern=NM(2, 4), **IN_BLOCKS),
    "tiles by wanda": lambda: PruningCallback(0.5, criterion=criteria.wanda, pattern=Block(3, 4), include=("*c_attn",)),
    "a scale for each output": lambda: QATCallback(8, activation_bits=None),
    "integers from the smallest to the largest": lambda: QATCallback(8, activation_bits=None, scale=scales.minmax),
    "a scale for each group of inputs": lambda: QATCallback(
        4, activation_bits=None, granularity=PerGroup(8), scale=scales.mse
    ),
    "binary": lambda: BinarizationCallback(),
    "few values": lambda: WeightSharingCallback(8),
}


def projected(method, model):
    """What a method makes of the weights, having seen one batch."""
    selection = method.select(model)
    for target in selection:
        method.check(target)
    method.begin(selection)
    loss = model.training_step([sequences()], 0)
    names = [target.name for target in selection]
    gradients = dict(zip(names, torch.autograd.grad(loss, [t.parameter for t in selection]), strict=True))
    weights = {target.name: target.parameter.detach().clone() for target in selection}
    method.observe(weights, gradients)
    method.stepped()
    method.strength = 1.0
    method.update(weights)
    method.project_(weights)
    method.verify(weights)
    kept = {kind: set(named) for kind, named in method.tensors().items()}
    method.load_tensors(method.tensors())
    assert {kind: set(named) for kind, named in method.tensors().items()} == kept
    method.end()
    return weights


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_a_method_does_what_it_does_to_linear_layers(make):
    model = build()
    found, expected = projected(make(), model), projected(make(), with_linear_layers(model))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name] == 0, turned(name, weight) == 0), name
        torch.testing.assert_close(found[name], turned(name, weight), rtol=1e-6, atol=1e-6)


def test_shapes_that_do_not_fit_are_refused_by_their_inputs():
    with pytest.raises(ValueError, match=r"inputs that 64 divides .* got 'h\.0\.attn\.c_attn\.weight'"):
        fit(build(), QATCallback(4, activation_bits=None, granularity=PerGroup(64), include=("*c_attn", "*c_fc")))
    with pytest.raises(ValueError, match=r"blocks of 3 x 1 .*'h\.0\.attn\.c_proj\.weight' as 16 x 16"):
        fit(build(), PruningCallback(0.5, pattern=Block(3, 1), **IN_BLOCKS))


def test_multiply_accumulates_are_counted():
    model = build()
    assert count_macs(model, TOKENS).layers == count_macs(with_linear_layers(model), TOKENS).layers


@pytest.fixture(scope="module")
def quantized():
    module = build()
    fit(module, QATCallback(7, schedule=SOON))  # with 8 bits kernels without VNNI saturate
    return module.eval()


def test_quantized_layers_compute_in_integers(quantized, tmp_path):
    grids = grids_of(quantized)
    for name in LAYERS:
        assert len(grids[f"{name}.weight"].scale) == quantized.get_submodule(name).nf
    with pytest.warns(UserWarning, match="computes layers of m.onnx in float"):  # the products of attention
        path = export(quantized, tmp_path / "m.onnx", TOKENS)  # which compares the outputs
    found = OnnxRuntime().operators(path)
    assert found.layers == len(LAYERS) + 1
    exact = lower(quantized, (TOKENS,), exact=True)
    assert (exact(TOKENS) - quantized(TOKENS)).abs().mean() <= 0.01 * quantized(TOKENS).abs().max()


class Scaled(Conv1D):
    def forward(self, x):
        return super().forward(x) / 2


@pytest.mark.filterwarnings("ignore:ONNX Runtime computes")
@pytest.mark.parametrize(
    "callback",
    [QATCallback(7, schedule=SOON), QATCallback(4, activation_bits=None, granularity=PerGroup(8), schedule=SOON)],
)
def test_what_a_class_of_its_own_does_besides_is_kept(callback, tmp_path):
    module = build(Scaled)
    fit(module, callback)
    for exact in (False, True):
        torch.testing.assert_close(lower(module, (TOKENS,), exact=exact)(TOKENS), module.eval()(TOKENS))
    export(module, tmp_path / "m.onnx", TOKENS)  # which compares the outputs


@pytest.mark.parametrize("bits", [8, None])
def test_normalization_behind_is_folded(bits):
    module = build()
    module.lm_head = nn.Sequential(nn.Flatten(0, 1), Conv1D(12, 16), nn.BatchNorm1d(12), nn.Unflatten(0, (-1, 8)))
    module.training_step = lambda batch: module(batch[0]).square().mean()
    fit(module, QATCallback(8, activation_bits=bits, schedule=SOON))
    lowered = lower(module, (TOKENS,))
    assert isinstance(lowered.lm_head[2], nn.Identity)
    torch.testing.assert_close(lowered(TOKENS), module.eval()(TOKENS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [8, None])
def test_half_precision_is_kept(bits, tmp_path):
    module = build()
    fit(module, QATCallback(8, activation_bits=bits, schedule=SOON), precision="bf16-true")
    outputs = module.eval().requires_grad_(False)(TOKENS)
    lowered = lower(module, (TOKENS,))(TOKENS)
    assert lowered.dtype == torch.bfloat16
    torch.testing.assert_close(lowered, outputs, rtol=0, atol=0.05 * float(outputs.abs().max()))
    export(module, tmp_path / "m.pt2", TOKENS)  # which compares the outputs


def test_biases_are_in_the_unit_of_the_integer_sums(quantized):
    layer, grid = quantized.h[0].mlp.c_fc, grids_of(quantized)["h.0.mlp.c_fc.weight"]
    other = nn.Linear(16, 64)
    with torch.no_grad():
        other.weight.copy_(layer.weight.t())
        layer.bias.copy_(torch.randn(64, generator=torch.Generator().manual_seed(0)))
        other.bias.copy_(layer.bias)
    round_bias_(layer, grid, torch.tensor(0.1))
    round_bias_(other, grid_of_rows(grid), torch.tensor(0.1))
    assert torch.equal(layer.bias, other.bias)


def grid_of_rows(grid):
    return type(grid)(grid.scale, grid.zero_point, grid.low, grid.high)


def test_the_archive_finds_the_integers(quantized, tmp_path):
    tensors = inspect_archive(export(quantized, tmp_path / "m.lcz")).tensors
    forms = {tensor.name: tensor.form for tensor in tensors}
    assert {forms[f"{name}.weight"] for name in LAYERS} == {"grid"}


def test_groups_of_inputs_become_blocks_of_four_bits(tmp_path):
    module = build()
    fit(
        module,
        QATCallback(4, activation_bits=None, granularity=PerGroup(16), scale=scales.mse, schedule=SOON, **IN_BLOCKS),
    )
    found = OnnxRuntime().operators(export(module.eval(), tmp_path / "m.onnx", TOKENS))
    assert found.fused == {"MatMulNBits": len(LAYERS)}


RUNS = {
    "tiles by wanda": lambda: [
        PruningCallback(0.5, criterion=criteria.wanda, pattern=Block(2, 4), schedule=SOON, every_n_steps=3, **IN_BLOCKS)
    ],
    "all of them": lambda: [
        PruningCallback(pattern=NM(2, 4), criterion=criteria.taylor, schedule=SOON, every_n_steps=3, **IN_BLOCKS),
        WeightSharingCallback(16, schedule=SOON, every_n_steps=3, **IN_BLOCKS),
        QATCallback(schedule=SOON, every_n_steps=3),
    ],
    "channels": lambda: [
        ChannelPruningCallback(macs=0.6, round_to=4, schedule=SOON, every_n_steps=3, example_input=TOKENS),
        QATCallback(schedule=SOON, every_n_steps=3),
    ],
}


@resumes
@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
def test_resumed_is_bit_identical_to_uninterrupted(make, tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = build()
        fit(module, *make(), *callbacks, ckpt_path=ckpt_path)
        return module

    assert not same(uninterrupted(run, tmp_path, (8, 16)), build())


def test_heads_and_hidden_units_are_removed(tmp_path):
    module = build()
    run = fit(module, RUNS["channels"]()[0])
    attention, mlp = module.h[0].attn, module.h[0].mlp
    heads, hidden = attention.num_heads, mlp.c_fc.nf
    assert heads < 4 or hidden < 64
    assert attention.split_size == 4 * heads
    assert [(layer.nx, layer.nf) for layer in (attention.c_attn, attention.c_proj, mlp.c_fc, mlp.c_proj)] == [
        (16, 12 * heads),
        (4 * heads, 16),
        (16, hidden),
        (hidden, 16),
    ]
    run.save_checkpoint(tmp_path / "m.ckpt")
    loaded = load_compressed(GPT2, tmp_path / "m.ckpt").eval()
    assert torch.equal(loaded(TOKENS), module.eval()(TOKENS))
    export(module, tmp_path / "m.onnx", TOKENS)


@pytest.mark.parametrize(("granularity", "groups"), [(PerChannel(), 1), (PerGroup(8), 2)])
@pytest.mark.parametrize("remove", [True, False])
def test_quantized_weights_are_narrowed_with_their_grids(remove, granularity, groups):
    module, options = build(), {"schedule": SOON, "every_n_steps": 3}
    skipped = ("*c_proj",) if groups > 1 else ()  # they lose inputs, and would keep parts of groups
    channels = ChannelPruningCallback(macs=0.63, round_to=1, remove=remove, example_input=TOKENS, **options)
    fit(
        module,
        channels,
        QATCallback(4, activation_bits=None, granularity=granularity, exclude=skipped, **IN_BLOCKS, **options),
    )
    outputs = module.eval()(TOKENS)
    assert (remove_zero_channels(module, TOKENS) == 0) == remove
    torch.testing.assert_close(module(TOKENS), outputs)
    for name, grid in grids_of(module).items():
        weight = module.get_parameter(name).detach()
        assert torch.equal(grid.project(weight), weight)
    width = module.h[0].mlp.c_fc.weight.shape[1]
    assert width % 8  # unlike the inputs
    assert len(grids_of(module)["h.0.mlp.c_fc.weight"].scale) == width * groups


Sharded = sharded(GPT2, "h.0", "h.1", "")  # along their inputs


def _sharded(*callbacks):
    torch.manual_seed(0)
    module = Sharded()
    fit(module, *callbacks, **fsdp2())
    return gathered(module)


def _refused():
    """Sixteen inputs are eight in each process."""
    for callback in (
        QATCallback(4, activation_bits=None, granularity=PerGroup(16), **IN_BLOCKS),
        PruningCallback(pattern=NM(1, 16), **IN_BLOCKS),
    ):
        with pytest.raises(ValueError, match=r"a number of inputs that 16 divides .*h\.0\.attn\.c_attn\.weight'"):
            _sharded(callback)
    return True


def test_sharded_along_their_inputs():
    callbacks = [
        PruningCallback(pattern=NM(2, 4), criterion=criteria.wanda, schedule=SOON, every_n_steps=3, **IN_BLOCKS),
        QATCallback(4, activation_bits=None, granularity=PerGroup(8), schedule=SOON, every_n_steps=3, **IN_BLOCKS),
    ]
    first, second = run_distributed(_sharded, *callbacks)
    for name in (f"{name}.weight" for name in LAYERS):
        assert (first[name] == second[name]).all()
        rows = torch.from_numpy(first[name]).t()
        assert ((rows.reshape(-1, 4) != 0).sum(1) <= 2).all()
        assert all(len(group.unique()) <= 15 for group in rows.reshape(-1, 8))
        assert rows.any(0).all()  # scores are those of the inputs that a process has
    assert run_distributed(_refused) == [True, True]


def test_the_plan_is_that_of_linear_layers():
    plan, expected = find_removable(build(), TOKENS), find_removable(gpt2.build(gpt2.linear), TOKENS)
    assert [(group.name, group.units, group.width) for group in plan.groups] == [
        (group.name, group.units, group.width) for group in expected.groups
    ]
    assert {group.name for group in plan.groups} == {name for name in LAYERS if name.endswith(("c_attn", "c_fc"))}
    assert plan.left_alone == expected.left_alone
    assert plan.prices == expected.prices


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("head", [True, False])
def test_heads_are_found_with_a_cache_and_without_any_linear_layer(cached, head, monkeypatch):
    monkeypatch.setattr(gpt2.Attention, "cached", cached)
    model = build()
    if not head:
        model.lm_head = nn.Identity()
    groups = {group.name: group for group in find_removable(model, TOKENS).groups}
    assert groups.keys() == {name for name in LAYERS if name.endswith(("c_attn", "c_fc"))}
    assert groups["h.0.attn.c_attn"].units == 4
    assert groups["h.0.attn.c_attn"].counters == (("h.0.attn", "num_heads", 1), ("h.0.attn", "split_size", 4))
