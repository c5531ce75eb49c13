"""Layers of PEFT: which are sums, what they add, and that training leaves merged weights compressed."""

import copy
import warnings

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_compress import (
    NM,
    BinarizationCallback,
    Block,
    CompressionBudget,
    LowRankCallback,
    PerGroup,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
)
from lightning_compress.adapters import additive_paths, declare
from lightning_compress.pruning import criteria
from lightning_compress.schedules import Constant, Linear
from lightning_compress.targets import select
from tests.support.runs import trainer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the packages that it imports
    import peft

RAMP = Linear(0.1, 0.6)


class Net(nn.Module):
    """An embedding, a convolution and linear layers."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(12, 8)
        self.conv = nn.Conv1d(8, 16, 3, padding=1)
        self.fc = nn.Linear(16, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, tokens):
        mixed = self.conv(self.table(tokens).transpose(1, 2)).mean(-1)
        return self.head(F.relu(self.fc(mixed)))


class Lit(L.LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW((p for p in self.parameters() if p.requires_grad), 0.02)


def adapted(layers=("table", "conv", "fc", "head"), **options):
    torch.manual_seed(0)
    config = peft.LoraConfig(**({"r": 2, "lora_alpha": 5, "target_modules": list(layers)} | options))
    return peft.get_peft_model(Net(), config)


def batches(count=12):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 12, (count, 16, 5), generator=generator)
    return [(some, some.sum(1) % 4) for some in tokens]


def fit(net, *callbacks, **options):
    run = trainer(*callbacks, **options)
    run.fit(Lit(net), DataLoader(batches(), batch_size=None))
    return run


def fill(net):
    """Adapters that are not zero, as after training."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in net.named_parameters():
        if "lora" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return net


def outputs(net):
    with torch.no_grad():
        return net.eval()(batches(1)[0][0])


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"lora_dropout": 0.1}, {"bias": "lora_only"}], ids=str)
def test_what_a_layer_adds_is_what_peft_merges(options):
    net = fill(adapted(**options))
    paths = {path.name.rpartition(".")[2]: path for path in additive_paths(net)}
    assert all(torch.equal(path(), path.layer.get_delta_weight("default")) for path in paths.values())
    sums = {name: path.parameter + path() for name, path in paths.items()}
    merged = copy.deepcopy(net).merge_and_unload()
    assert paths.keys() == {"table", "conv", "fc", "head"}
    for name, total in sums.items():
        torch.testing.assert_close(total, merged.get_parameter(f"{name}.weight"))


def test_several_adapters_scales_and_switches():
    net = adapted(["fc"])
    net.add_adapter("second", peft.LoraConfig(r=3, lora_alpha=3, target_modules=["fc"]))
    fill(net)
    (path,) = additive_paths(net)
    first, second = (path.layer.get_delta_weight(name) for name in ("default", "second"))
    torch.testing.assert_close(path(), first)
    net.base_model.set_adapter(["default", "second"])
    torch.testing.assert_close(path(), first + second)
    path.layer.set_scale("second", 2.0)
    torch.testing.assert_close(path(), first + 2 * second)
    with net.disable_adapter():
        assert not path().any()
    net.merge_adapter()
    assert not path().any()


def test_a_transposed_layer():
    """PEFT knows those of transformers by their class."""
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    net = nn.Sequential(Conv1D(16, 8))
    net = fill(peft.get_peft_model(net, peft.LoraConfig(r=2, target_modules=["0"], fan_in_fan_out=True)))
    (path,), (target,) = additive_paths(net), select(net)
    assert path().shape == (8, 16)
    assert torch.equal(path(), path.layer.get_delta_weight("default"))
    assert (target.shape, target.transposed) == ((16, 8), True)
    total = path.parameter + path()
    torch.testing.assert_close(net.merge_and_unload()[0].weight, total)


def test_a_convolution_of_groups_is_refused():
    net = nn.Sequential(nn.Conv1d(8, 16, 3, groups=2))
    with pytest.warns(UserWarning, match="groups > 1"):
        net = peft.get_peft_model(net, peft.LoraConfig(r=2, target_modules=["0"]))
    with pytest.raises(ValueError, match="got lora.Conv1d on a convolution of groups, which PEFT cannot merge at"):
        select(net)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (lambda: peft.LoraConfig(r=2, target_modules=["fc"], use_dora=True), "lora.Linear with DoraLinearVariant"),
        (lambda: peft.LoHaConfig(r=2, target_modules=["fc"]), "loha.Linear"),
        (lambda: peft.IA3Config(target_modules=["fc"], feedforward_modules=[]), "ia3.Linear"),
    ],
    ids=["DoRA", "LoHa", "IA3"],
)
def test_adapters_that_are_no_known_sum_are_refused_by_name(config, found):
    net = peft.get_peft_model(Net(), config())
    error = f"need adapters that add to a weight, as LoRA does, got {found} at '.*fc'.*declare"
    with pytest.raises(ValueError, match=error):
        select(net)
    assert select(net, include=("*head",), exclude=("*.fc",)).targets[0].name.endswith("head.weight")


def test_another_sum_can_be_declared():
    net = peft.get_peft_model(Net(), peft.LoHaConfig(r=2, target_modules=["fc"], init_weights=False))
    layer = net.base_model.model.fc
    declare(layer, "base_layer.weight", lambda layer: layer.get_delta_weight("default"))
    fit(net, PruningCallback(0.5, schedule=Constant()))
    weight = net.merge_and_unload().fc.weight
    assert int((weight == 0).sum()) == weight.numel() // 2


def test_methods_that_change_layers_are_refused():
    with pytest.raises(ValueError, match="need plain layers for LowRankCallback, got adapters at 'net.base_model"):
        fit(adapted(["fc"]), LowRankCallback(0.3, schedule=Constant()))


def zeros(weight):
    return int((weight == 0).sum())


def groups_of_four(weight):
    return (weight.reshape(-1, 4) != 0).sum(1)


CASES = {
    "half": (lambda: [PruningCallback(0.5, schedule=RAMP)], None),
    "2:4": (lambda: [PruningCallback(pattern=NM(2, 4), schedule=RAMP)], lambda w: (groups_of_four(w) == 2).all()),
    "blocks": (
        lambda: [PruningCallback(0.5, pattern=Block(2, 4), schedule=RAMP, scope="layer")],
        lambda w: zeros(w) == w.numel() // 2,
    ),
    "4 bits in groups": (
        lambda: [QATCallback(4, activation_bits=None, granularity=PerGroup(8), every_n_steps=2)],
        lambda w: all(len(row.unique()) <= 15 for row in w.reshape(-1, 8)),
    ),
    "binary": (
        lambda: [BinarizationCallback()],
        lambda w: all(len(row.abs().unique()) == 1 for row in w),
    ),
    "values": (lambda: [WeightSharingCallback(8, schedule=RAMP)], lambda w: len(w.unique()) <= 8),
    "values of 2:4": (
        lambda: [PruningCallback(pattern=NM(2, 4), schedule=RAMP), WeightSharingCallback(8, schedule=RAMP)],
        lambda w: len(w.unique()) <= 8 and (groups_of_four(w) <= 2).all(),
    ),
    "binary of 2:4": (
        lambda: [PruningCallback(pattern=NM(2, 4), schedule=RAMP), BinarizationCallback()],
        lambda w: all(len(row.abs().unique()) <= 2 for row in w) and (groups_of_four(w) == 2).all(),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_merged_weights_are_compressed_exactly(case):
    callbacks, holds = CASES[case]
    net = adapted(["fc", "head"])
    fit(net, *callbacks())
    before, merged = outputs(net), net.merge_and_unload()
    torch.testing.assert_close(outputs(merged), before, rtol=1e-5, atol=1e-6)
    weights = [merged.fc.weight.detach(), merged.head.weight.detach()]
    assert all(holds(weight) for weight in weights) if holds else sum(map(zeros, weights)) == 320


def test_only_the_adapters_train():
    net, before = adapted(["fc"]), adapted(["fc"])
    fit(net, QATCallback(4, activation_bits=None))
    changed = [n for n, p in net.named_parameters() if not torch.equal(p, before.get_parameter(n))]
    assert [name.partition("fc.")[2] for name in changed] == [
        "base_layer.weight",
        "lora_A.default.weight",
        "lora_B.default.weight",
    ]


def test_several_active_adapters_are_merged_exactly():
    """Three roundings: the zeros are met nevertheless."""
    net = adapted(["fc"])
    net.add_adapter("second", peft.LoraConfig(r=3, target_modules=["fc"]))
    fill(net).base_model.set_adapter(["default", "second"])
    fit(net, PruningCallback(0.5, schedule=Constant()))
    weight = net.merge_and_unload().fc.weight
    assert zeros(weight) == weight.numel() // 2


def test_the_embedding_and_the_convolution():
    net = adapted(["table", "conv"])
    fit(net, PruningCallback(0.5, schedule=RAMP, scope="layer"), QATCallback(4, activation_bits=None))
    merged = net.merge_and_unload()
    for weight in (merged.table.weight, merged.conv.weight):
        assert zeros(weight) >= weight.numel() // 2
        assert all(len(row.unique()) <= 15 for row in weight.detach().flatten(1))


def test_one_codebook_for_all_layers_is_refused():
    with pytest.raises(ValueError, match="need scope='layer' for 'net.base_model.model.fc.base_layer.weight'"):
        fit(adapted(("fc", "head")), WeightSharingCallback(8, scope="global"), max_epochs=1)


@pytest.mark.parametrize(
    "callback", [PruningCallback(criterion=criteria.taylor), CompressionBudget(bytes=5_000)], ids=["taylor", "budget"]
)
def test_frozen_weights_have_no_gradients_to_choose_by(callback):
    with pytest.raises(ValueError, match="gradients .*base_layer.weight'"):
        fit(adapted(("fc", "head")), callback, max_epochs=1)


def test_an_optimizer_may_hold_the_frozen_weights():
    class Whole(Lit):
        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 0.02)

    module = Whole(adapted(("fc", "head")))
    trainer(PruningCallback(0.5, schedule=RAMP), max_epochs=2).fit(module, DataLoader(batches(), batch_size=None))
    merged = module.net.merge_and_unload()
    weight = torch.cat([merged.fc.weight.flatten(), merged.head.weight.flatten()])
    assert int((weight == 0).sum()) == len(weight) // 2
