"""Groups that can be removed whole with their residual branch, and their removal, which changes nothing."""

import copy

import onnx
import onnxruntime
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn

from examples.fashion_mnist.models import ResNet
from examples.loaders import TensorLoader
from lightning_compress import DistillationCallback, QATCallback, export, load_compressed, remove_zero_channels
from lightning_compress.carried import attach_structure
from lightning_compress.channels import ChannelPruningCallback
from lightning_compress.channels.budget.selection import choose_units, lowest_cost
from lightning_compress.channels.dependencies.removable import find_removable
from lightning_compress.channels.groups import hollow_layers, mask_, removed_entries
from lightning_compress.channels.removal.hollow import Hollow
from lightning_compress.channels.removal.shapes import CHANNELS, conform_, dense_copy, record
from lightning_compress.channels.removal.surgery import narrow_module_, remove_units_
from lightning_compress.schedules import Linear
from lightning_compress.schemas import RecordError
from tests.support import gpt2
from tests.support.distributed import run_distributed
from tests.support.methods import Halved
from tests.support.nets import Attention, Blocks, Dense, Mobile, Module, Residual, data, doubles, outcome, step
from tests.support.runs import Randomness, Save, resumes, same, trainer

IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
PROBE = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(5))  # what `outcome` looks at
PLAIN = {"plain1", "plain_norm1", "plain2"}
NECK = {"neck1", "neck_norm1", "neck2", "neck_norm2", "squeeze", "excite", "neck3"}
FEED = {"feed_norm", "feed1", "feed2"}


def branches(model, example=IMAGES):
    return [set(group.branch) for group in find_removable(model, example, remove_blocks=True).groups if group.branch]


def whole(plan):
    """All branches, and half of the other units."""
    return {g.name: torch.arange(g.units) < (g.units if g.branch else g.units // 2) for g in plan.groups}


class Towers(nn.Module):
    """Two ways from the input to the output; each layer of the second reads what the stem has made of it."""

    def __init__(self, stem=True):
        super().__init__()
        self.stem = nn.Linear(4, 8) if stem else nn.Identity()
        width = 8 if stem else 4
        self.a1, self.a2, self.b1, self.b2 = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.a2(torch.relu(self.a1(x))) + self.b2(torch.relu(self.b1(x)))


class TestWhich:
    def test_residual_blocks_with_all_that_leads_into_them(self):
        assert sorted(branches(Blocks()), key=len) == [FEED, PLAIN, NECK]
        assert branches(Residual()) == [{"conv1", "norm1", "conv2"}]

    @pytest.mark.parametrize("net", [Dense, lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3))])
    def test_not_the_only_way(self, net):
        assert branches(net()) == []

    @pytest.mark.parametrize("layer", [gpt2.Conv1D, gpt2.linear])
    def test_feed_forwards_of_gpt2(self, layer):
        blocks = [{f"h.{number}.{name}" for name in ("ln_2", "mlp.c_fc", "mlp.c_proj")} for number in (0, 1)]
        found = branches(gpt2.build(layer), gpt2.sequences()[:2])
        assert sorted(found, key=min) == blocks

    def test_excitation_may_become_constant(self):
        assert branches(Mobile()) == [{"squeeze", "excite"}]

    def test_of_two_ways_one(self):
        assert branches(Towers(), torch.randn(2, 4)) in ([{"a1", "a2"}], [{"b1", "b2"}])

    def test_not_a_branch_that_reads_the_input_itself(self):
        assert branches(Towers(stem=False), torch.randn(2, 4)) == []

    def test_not_attention(self):
        assert branches(Attention(), torch.randn(2, 5, 16)) == []

    def test_not_a_layer_whose_weight_is_used_elsewhere(self):
        class Tied(Residual):
            def forward(self, x):
                return super().forward(x) + self.conv1.weight.mean()

        class Shared(Residual):
            def __init__(self):
                super().__init__()
                self.other = nn.Conv2d(8, 16, 3, padding=1, bias=False)
                self.other.weight = self.conv1.weight

            def forward(self, x):
                return super().forward(x) + self.other(x.expand(-1, 8, -1, -1)).mean()

        assert branches(Tied()) == branches(Shared()) == []

    def test_only_if_asked(self):
        assert not any(group.branch for group in find_removable(Blocks(), IMAGES).groups)


class TestRemoval:
    @pytest.mark.parametrize("training", [True, False])
    def test_equals_masking(self, training):
        torch.manual_seed(0)
        model = Blocks().train(training)
        plan = find_removable(model, IMAGES, remove_blocks=True)
        removed = whole(plan)
        mask_(model.state_dict(), removed_entries(plan.groups, removed))
        small = copy.deepcopy(model)
        gone = narrow_module_(small, plan.groups, removed)
        assert set(hollow_layers(plan.groups, removed)) == PLAIN | NECK | FEED
        assert {name for name, layer in small.named_modules() if isinstance(layer, Hollow)} == PLAIN | NECK | FEED
        kept = {name for name, _ in small.named_parameters() if name.rpartition(".")[0] in PLAIN | NECK | FEED}
        assert kept == {"feed2.bias"}
        assert sum(new is None for new in gone.values()) == len(list(model.parameters())) - len(
            list(small.parameters())
        )
        torch.testing.assert_close(small(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-6)
        assert small.stem.out_channels == 4

    @pytest.mark.parametrize(
        "make",
        [
            lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
            lambda p: torch.optim.AdamW(p, 1e-2, foreach=True),
        ],
        ids=["sgd", "adamw"],
    )
    def test_the_small_model_trains_on_as_the_masked_one(self, make):
        torch.manual_seed(0)
        model = Blocks()
        plan = find_removable(model, IMAGES, remove_blocks=True)
        model.double()
        removed = {name: units if units.all() else torch.zeros_like(units) for name, units in whole(plan).items()}
        gone = removed_entries(plan.groups, removed)
        optimizer = make(model.parameters())
        for number in range(3):
            step(model, optimizer, number, gone)
        masked, follower = copy.deepcopy((model, optimizer))
        remove_units_(model, plan.groups, removed, [optimizer])
        assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in model.parameters()}
        assert {id(p) for p in optimizer.state} <= {id(p) for p in model.parameters()}
        for number in range(3, 8):
            step(model, optimizer, number)
            step(masked, follower, number, gone)
        expected = masked.state_dict()
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-9, atol=1e-12)


class TestSelection:
    def setup_method(self):
        self.groups = find_removable(Blocks(), IMAGES, remove_blocks=True).groups
        self.sizes = {name: list(p.shape) for name, p in Blocks().named_parameters()}
        self.prices = dict.fromkeys(self.sizes, 1.0)

    def choose_units(self, limit, scores=None):
        alike = {group.name: torch.ones(group.units) for group in self.groups}
        return choose_units(self.groups, alike | (scores or {}), self.sizes, self.prices, limit, round_to=4)

    def left(self, removed):
        model = Blocks()
        narrow_module_(model, self.groups, removed)
        return sum(p.numel() for p in model.parameters())

    def test_the_least_is_what_is_left_without_any_branch(self):
        removed = self.choose_units(0.0)
        assert all(removed[group.name].all() for group in self.groups if group.branch)
        assert lowest_cost(self.groups, self.sizes, self.prices, round_to=4) == self.left(removed)

    @pytest.mark.parametrize("fraction", [0.8, 0.5, 0.3])
    def test_the_budget_is_met_by_the_narrowed_model(self, fraction):
        limit = fraction * sum(p.numel() for p in Blocks().parameters())
        removed = self.choose_units(limit)
        assert self.left(removed) <= limit

    def test_an_unimportant_branch_goes_first(self):
        self.groups = [group for group in self.groups if group.branch.keys() & {"neck3", "feed2"}]
        neck = next(group for group in self.groups if "neck3" in group.branch)
        without = self.left({neck.name: torch.ones(neck.units, dtype=torch.bool)})
        removed = self.choose_units(without, {neck.name: torch.full((neck.units,), 1e-6)})
        assert {name for name, units in removed.items() if units.any()} == {neck.name}
        assert removed[neck.name].all()


class Branched(Module):
    def __init__(self, optimizer=torch.optim.AdamW, **settings):
        super().__init__(optimizer, Blocks(), **settings)


class Small(Module):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(net=ResNet(8, width=8))
        self.net.fc = nn.Linear(32, 3)


def built(**settings):
    torch.manual_seed(0)
    return Branched(**settings)


def callback(macs=0.4, **settings):
    settings = {"remove_blocks": True, "round_to": 8, "every_n_steps": 2, "schedule": Linear(0.1, 0.5), **settings}
    return ChannelPruningCallback(macs, **settings)


def gone(module):
    return {name for name, layer in module.named_modules() if isinstance(layer, Hollow)}


class TestInFit:
    @pytest.mark.parametrize(
        "optimizer", [{}, {"optimizer": torch.optim.SGD, "momentum": 0.9, "weight_decay": 0.1}], ids=["adamw", "sgd"]
    )
    @pytest.mark.parametrize(
        "others",
        [list, lambda: [Halved(schedule=Linear(0.2, 0.5), every_n_steps=3)], lambda: [EMAWeightAveraging(decay=0.5)]],
        ids=["alone", "with another method", "EMA"],
    )
    def test_the_narrowed_run_ends_where_the_masked_run_ends(self, optimizer, others):
        ends = []
        for remove in (True, False):
            module, pruning = built(**optimizer), callback(remove=remove)
            trainer(pruning, *others(), precision="64-true", max_epochs=4).fit(module, doubles())
            ends.append((outcome(module), gone(module), pruning.metrics()["macs"]))
        (narrowed, hollow, fraction), (masked, none, same_fraction) = ends
        torch.testing.assert_close(narrowed, masked, rtol=1e-8, atol=1e-10)
        assert hollow
        assert not none
        assert fraction == pytest.approx(same_fraction)
        assert fraction <= 0.4

    def test_the_fraction_of_the_macs_is_that_of_a_forward_pass(self):
        module, pruning = built(), callback()
        trainer(pruning).fit(module, data())
        counted, dense = ({}, {})
        for model, found in ((module.net, counted), (Blocks(), dense)):
            for name, layer in model.named_modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    layer.register_forward_hook(
                        lambda layer, _, y, found=found, name=name: found.update(
                            {name: layer.weight.numel() * y.numel() / len(y) / y.shape[1]}
                        )
                    )
            model.eval()(IMAGES)
        assert pruning.metrics()["macs"] == pytest.approx(sum(counted.values()) / sum(dense.values()))

    def test_the_same_fraction_of_every_layer_removes_no_block(self):
        with pytest.raises(ValueError, match="need macs, parameters or latency with remove_blocks=True, got channels="):
            ChannelPruningCallback(channels=0.5, remove_blocks=True)

    def test_excluded_branches_stay(self):
        module = built()
        trainer(callback(0.5, exclude=("*neck*", "*excite*", "*squeeze*", "*feed*"))).fit(module, data())
        assert gone(module) in (set(), {f"net.{name}" for name in PLAIN})

    @resumes
    def test_resumed_is_bit_identical_and_loads_without_a_trainer(self, tmp_path):
        module = built()
        batches = TensorLoader(*data().dataset.tensors, batch_size=8)
        trainer(callback(), Randomness(), Save(tmp_path, range(1, 25))).fit(module, batches)
        steps = {int(path.stem[5:]): path for path in tmp_path.glob("*.ckpt")}
        hollow = {number: bool(_hollow(path)) for number, path in steps.items()}
        first = min(number for number, is_hollow in hollow.items() if is_hollow)
        assert 1 < first < max(steps)
        for number in (first - 1, first, first + 1):
            resumed = Branched()
            batches = TensorLoader(*data().dataset.tensors, batch_size=8)
            trainer(callback(), Randomness()).fit(resumed, batches, ckpt_path=steps[number], weights_only=True)
            assert same(resumed, module), number
        loaded = load_compressed(Branched, steps[max(steps)])
        assert gone(loaded) == gone(module)
        assert torch.equal(outcome(loaded), outcome(module))

    def test_a_small_model_is_trained_on_and_pruned_further(self):
        module, pruning = built(), callback()
        trainer(pruning).fit(module, data())
        first, lost = pruning.metrics()["macs"], gone(module)
        trainer(callback()).fit(module, data())
        assert gone(module) == lost
        again = callback(0.08, round_to=2)
        trainer(again).fit(module, data())
        assert again.metrics()["macs"] <= 0.08 < first <= 0.4
        assert gone(module) >= lost

    def test_quantized_and_taught_in_the_same_fit(self, tmp_path):
        module, pruning = Small(), callback(0.5)
        saving = ModelCheckpoint(tmp_path, filename="last")
        # With 8 bits kernels without VNNI saturate.
        others = [QATCallback(7, every_n_steps=2), DistillationCallback(copy.deepcopy(module), alpha=0.5), saving]
        trainer(pruning, *others, max_epochs=4).fit(module, data())
        assert gone(module)
        loaded = load_compressed(Small, tmp_path / "last.ckpt")
        assert torch.equal(outcome(loaded), outcome(module))
        path = export(module.eval(), tmp_path / "m.onnx", IMAGES)
        expected = outcome(module)
        found = onnxruntime.InferenceSession(path).run(None, {"x": PROBE.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=float(expected.std()) / 20)

    @pytest.mark.parametrize("form", [".onnx", ".pt2", ".lcz"])
    def test_the_artefact(self, form, tmp_path):
        module = built()
        trainer(callback()).fit(module, data())
        export(module.eval(), tmp_path / f"m{form}", IMAGES)
        if form == ".onnx":
            found = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"x": IMAGES[:3].numpy()})[0]
            torch.testing.assert_close(torch.from_numpy(found), module(IMAGES[:3]), rtol=1e-4, atol=1e-5)
            assert "Expand" not in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}


def _hollow(path):
    return torch.load(path, weights_only=True)["compression_structures"]["channels"]["hollow"]


def _ranks():
    module = built()
    trainer(callback(), strategy="ddp", devices=2, use_distributed_sampler=True).fit(module, data())
    return gone(module), {name: p.detach().numpy() for name, p in module.named_parameters()}


def test_every_rank_loses_the_same_branches():
    (lost, first), (_, second) = run_distributed(_ranks)
    assert lost
    assert first.keys() == second.keys()
    for name in first:
        assert (first[name] == second[name]).all(), name


class TestStructures:
    def test_there_and_back(self):
        model = Blocks()
        plan = find_removable(model, IMAGES, remove_blocks=True)
        small, fresh = copy.deepcopy(model), Blocks()
        narrow_module_(small, plan.groups, whole(plan))
        for target in (small, small, model, small):
            conform_(fresh, record(target))
            fresh.load_state_dict(target.state_dict())
            assert torch.equal(fresh.eval()(IMAGES), target.eval()(IMAGES))

    def test_the_dense_copy_is_filled_again(self):
        module = built()
        trainer(callback()).fit(module, data())
        dense = dense_copy(module)
        assert [p.shape for p in dense.parameters()] == [p.shape for p in Branched().parameters()]
        assert dense.eval()(IMAGES).shape == (4, 3)

    @pytest.mark.parametrize("name", ["net.stem.weight", "net", "nowhere"])
    def test_a_foreign_record_is_refused(self, name):
        module = built()
        checkpoint = {"compression_structures": {CHANNELS.key: record(module) | {"hollow": {name: 3}}}}
        with pytest.raises(RecordError, match=rf"need channels\.hollow\['{name}'\] as the name of a layer, got 3"):
            attach_structure(module, CHANNELS, checkpoint)


def test_zeros_left_by_a_run_go_with_their_branch():
    module = built()
    trainer(callback(remove=False)).fit(module, data())
    before = outcome(module)
    assert remove_zero_channels(module, IMAGES) > 0
    assert gone(module)
    torch.testing.assert_close(outcome(module), before, rtol=1e-5, atol=1e-6)
