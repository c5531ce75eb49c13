"""Checkpoints and archives say whose adapters are merged."""

import copy
import warnings

import lightning as L
import pytest
import torch
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from torch import nn

from lightning_compress import PruningCallback, QATCallback, RecordError, export, load_archive, load_compressed
from lightning_compress.adapters import additive_paths, declare, merge
from lightning_compress.quantization.activations.quantizers import quantizers_of
from lightning_compress.schedules import Constant
from tests.support.promises import shipped
from tests.support.runs import Randomness, Save, resumes, same, uninterrupted
from tests.support.toys import Adapted, Digits, LoRA, build, digits, fit


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A quantized module with adapters, and its checkpoint."""
    module, path = build(kind=Adapted), tmp_path_factory.mktemp("trained") / "end.ckpt"
    fit(module, QATCallback(4, activation_bits=None), PruningCallback(0.5, schedule=Constant())).save_checkpoint(path)
    return module, path


def test_a_checkpoint_loads_merged(trained):
    module, path = trained
    loaded = load_compressed(Adapted, path)
    assert not additive_paths(loaded)
    assert same(loaded, shipped(module))


def test_a_checkpoint_loads_into_the_plain_class_unmerged(trained):
    module, path = trained
    plain = Adapted.load_from_checkpoint(path, map_location="cpu")
    state = module.state_dict()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())


def test_an_archive_is_that_of_the_plain_model(trained, tmp_path):
    module, _ = trained
    path = export(module, tmp_path / "m.lcz")
    assert additive_paths(module)  # a copy was merged
    plain = Digits()
    plain.load_state_dict(load_archive(path), strict=True)
    assert same(load_compressed(Adapted, path), shipped(module))


def test_a_merged_module_can_be_saved_again(trained, tmp_path):
    module, _ = trained
    merged = merge(copy.deepcopy(module))
    fit(merged, QATCallback(4, activation_bits=None, include=("net.*",)), max_steps=1).save_checkpoint(
        tmp_path / "merged.ckpt"
    )
    assert same(load_compressed(Adapted, tmp_path / "merged.ckpt"), merged)


class WithHead(Digits):
    """LoRA on the first layers, and a head that PEFT trains in a copy, as it does with the head of a classifier."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        layers = ["net.0", "net.3", "net.9"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inject_adapter_in_model(LoraConfig(r=2, target_modules=layers, modules_to_save=["net.11"]), self)


@pytest.mark.parametrize("bits", [None, 8])
def test_a_trained_copy_of_a_layer_takes_the_place_of_the_layer(bits, tmp_path):
    module, path = build(kind=WithHead), tmp_path / "end.ckpt"
    fit(module, QATCallback(8, activation_bits=bits), PruningCallback(0.5)).save_checkpoint(path)
    archive = export(module, tmp_path / "m.lcz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # quantizers are no part of a state dict
        state = load_archive(archive)
    assert state.keys() == Digits().state_dict().keys()
    head = module.net[11].modules_to_save["default"]
    assert torch.equal(state["net.11.weight"], head.weight)
    assert not torch.equal(state["net.11.weight"], module.net[11].original_module.weight)
    images = digits()[0][:64]
    for loaded in (load_compressed(WithHead, path), load_compressed(WithHead, archive), merge(copy.deepcopy(module))):
        assert same(loaded, shipped(module))
        assert type(loaded.net[11]) is nn.Linear
        torch.testing.assert_close(loaded.eval()(images), module.eval()(images))


def test_merging_by_peft_keeps_the_quantizers_of_a_trained_copy():
    module = build(kind=WithHead)
    module.net = get_peft_model(Digits().net, LoraConfig(r=2, target_modules=["0", "9"], modules_to_save=["11"]))
    fit(module, QATCallback(8, activation_bits=4))
    images, quantizers = digits()[0][:64], len(quantizers_of(module))
    expected = module.eval()(images)
    module.net = module.net.merge_and_unload()
    assert len(quantizers_of(module)) == quantizers > 3
    torch.testing.assert_close(module.eval()(images), expected)


def test_a_layer_computes_as_its_original_while_adapters_are_switched_off():
    module = build(kind=WithHead)
    nn.init.ones_(module.net[11].modules_to_save["default"].weight)
    module.net[11].enable_adapters(False)
    assert not torch.equal(merge(module).net[11].weight, torch.ones(10, 32))


class Thin(Adapted):
    """Its checkpoints hold no weight that is frozen."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.strict_loading = False

    def on_save_checkpoint(self, checkpoint):
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if ".base." not in name}


@resumes
def test_a_checkpoint_of_adapters_alone_resumes_bit_identical(tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = build(kind=Thin)
        method = QATCallback(4, activation_bits=None, every_n_steps=3), PruningCallback(0.5, every_n_steps=3)
        fit(module, *method, Randomness(), *callbacks, ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, range(4, 36, 7))
    checkpoint = torch.load(tmp_path / "step=25.ckpt", weights_only=True)
    assert checkpoint["latent_weights"] == {}
    assert not any(".base." in name for name in checkpoint["state_dict"])


@pytest.mark.filterwarnings("ignore:Found keys that are in the model state dict")
def test_a_checkpoint_of_adapters_alone_is_not_merged_into_weights_that_it_lacks(tmp_path):
    fit(build(kind=Thin), PruningCallback(0.5), max_steps=20).save_checkpoint(tmp_path / "thin.ckpt")
    with pytest.raises(RecordError, match="need the weight 'net.0.base.weight' to merge adapters, got a checkpoint of"):
        load_compressed(Thin, tmp_path / "thin.ckpt")


class Louder(Adapted):
    """Its adapters are scaled by another factor than those of its parent."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        for path in additive_paths(self):
            declare(path.layer, "base.weight", lambda layer: 3 * layer.delta())


def test_a_checkpoint_that_loads_with_other_adapters_is_told(tmp_path):
    fit(build(kind=Adapted), PruningCallback(0.5), max_steps=12).save_checkpoint(tmp_path / "end.ckpt")
    with pytest.warns(UserWarning, match=r"the merged weight of 'net\.\d+' may lack its zeros"):
        load_compressed(Louder, tmp_path / "end.ckpt")


def test_a_record_of_another_model_is_refused(trained, tmp_path):
    _, path = trained
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["compression_structures"]["adapters"]["merged"] = ["net.77"]
    torch.save(checkpoint, tmp_path / "forged.ckpt")
    with pytest.raises(RecordError, match="need adapters as names of layers, got 'net.77'"):
        load_compressed(Adapted, tmp_path / "forged.ckpt")


class Scaled(LoRA):
    """Scales of adapters as the test sets them, and a second adapter beside the first."""

    scale, active = 1.0, ("default",)

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layers = [f"net.{index}" for index in (0, 3, 9, 11)]
            inject_adapter_in_model(LoraConfig(r=2, target_modules=layers), self, adapter_name="other")
        for path in additive_paths(self):
            path.layer.set_adapter(list(self.active))
            path.layer.set_scale("default", self.scale)
            for name in ("lora_A", "lora_B"):
                nn.init.normal_(getattr(path.layer, name)["other"].weight, std=0.1).requires_grad_(True)
                getattr(path.layer, name)["default"].weight.requires_grad_(True)


class FirstOutputs(L.Callback):
    """The state of the model as the first batch of a run finds it."""

    def on_train_batch_start(self, trainer, module, *_):
        if not hasattr(self, "sums"):
            self.sums = {path.name: path.parameter.detach() + path() for path in additive_paths(module)}


@pytest.mark.parametrize("changed", [{"scale": 0.5}, {"active": ("other",)}], ids=str)
def test_other_scales_and_active_adapters_at_a_resume_are_named_and_compressed(changed, tmp_path, monkeypatch):
    """From the first batch on, the sum of now is on the masks of the checkpoint: half of its entries are zero."""
    method = {"schedule": Constant(), "scope": "layer", "every_n_steps": 1000}
    fit(build(kind=Scaled), PruningCallback(0.5, **method), Save(tmp_path, [15]))
    for name, value in changed.items():
        monkeypatch.setattr(Scaled, name, value)
    module, first = build(kind=Scaled), FirstOutputs()
    with pytest.warns(UserWarning, match=r"the adapters of net.0.base_layer.weight, .* are not those of"):
        fit(module, PruningCallback(0.5, **method), first, ckpt_path=tmp_path / "step=15.ckpt", max_steps=20)
    for total in first.sums.values():
        assert (total.abs() < 1e-6).float().mean() == pytest.approx(0.5, abs=1 / total.numel())
    assert all((layer.weight == 0).float().mean() > 0.4 for layer in (merge(module).net[0], module.net[9]))


def test_the_same_adapters_resume_without_a_word(tmp_path, recwarn):
    fit(build(kind=Scaled), PruningCallback(0.5), Save(tmp_path, [15]))
    fit(build(kind=Scaled), PruningCallback(0.5), ckpt_path=tmp_path / "step=15.ckpt", max_steps=20)
    assert not [warning for warning in recwarn if "adapters" in str(warning.message)]
