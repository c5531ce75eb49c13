import pytest
import torch
from torch import nn

from lightning_compress.cli.vocabulary import expanded
from lightning_compress.deploy import export
from lightning_compress.loading import load_compressed
from lightning_compress.quantization import QATCallback, profiles
from lightning_compress.quantization.activations.quantizers import ActivationQuantizer, RowQuantizer, quantizers_of
from lightning_compress.quantization.dataflow.flow import Dataflow
from lightning_compress.quantization.dataflow.placement import place_quantizers
from lightning_compress.quantization.dataflow.traces import Trace
from tests.support.classifiers import Classifier, Conv, ResNet, fit, loader
from tests.support.runs import resumes, uninterrupted


def places(net: nn.Module, profile: profiles.Profile, *shape: int) -> set[tuple[str, str]]:
    layers = [name for name, module in net.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    with Trace(net) as trace:
        net(torch.randn(2, *shape))
    placement = place_quantizers(Dataflow(trace), layers, profile)
    assert not placement.missed
    return {(place.module, place.side) for place in placement.places}


def test_a_convolution_in_front_of_an_addition_stays_float_where_its_kernel_adds():
    everywhere = places(ResNet(), profiles.OnnxRuntime(), 1, 8, 8)
    fused = places(ResNet(), profiles.TensorRT(), 1, 8, 8)
    # Each addition keeps one rounded input: its shortcut, which is no output of a convolution in the first block.
    assert everywhere - fused == {(f"blocks.{block}.bn2", "output") for block in range(3)}
    assert not fused - everywhere


def test_a_phone_needs_the_last_output_too():
    profile = profiles.Mobile()
    assert places(ResNet(), profile, 1, 8, 8) == places(ResNet(), profiles.OnnxRuntime(), 1, 8, 8) | {("fc", "output")}
    assert places(nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2)), profile, 4) == {
        ("0", "input"),
        ("0", "output"),
        ("1", "output"),
        ("2", "output"),
    }


def test_the_output_of_a_whole_model_is_quantized_inside_it():
    module = Classifier()
    fit(module, QATCallback(profile=profiles.Mobile()))
    assert ("net", "output") in {(place.module, place.side) for place in quantizers_of(module)}
    images = next(iter(loader()))[0]
    [scale] = [quantizer.scale for place, quantizer in quantizers_of(module).items() if place.module == "net"]
    steps = (module(images) / scale).detach()
    assert torch.allclose(steps, steps.round(), atol=1e-3)


@pytest.mark.parametrize("bits", [4, 8])
def test_symmetric_values_are_bit_for_bit_those_of_the_native_operator(bits):
    x = 3 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    quantizer = ActivationQuantizer(bits, torch.tensor(-0.3), torch.tensor(2.1), symmetric=True)
    half = 2 ** (bits - 1)
    native = torch.fake_quantize_per_tensor_affine(x, quantizer.scale, torch.tensor(0).int(), -half, half - 1)
    assert torch.equal(quantizer.quantize(x), native)
    assert float(quantizer.scale) == pytest.approx(2.1 / (half - 1))
    assert int(quantizer.zero_point) == half


def test_the_gradient_of_a_symmetric_range_is_that_of_the_native_operator():
    x = 3 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    quantizer = ActivationQuantizer(8, torch.tensor(-2.0), torch.tensor(1.0), symmetric=True)
    quantizer.learn(True)
    (quantizer.quantize(x) * weights).sum().backward()
    scale = quantizer.scale.detach().reshape(1).requires_grad_()
    native = torch._fake_quantize_learnable_per_tensor_affine(x, scale, torch.zeros(1), -128, 127, 1.0)
    (native * weights).sum().backward()
    assert quantizer.low.grad is None
    assert float(quantizer.high.grad) == pytest.approx(float(scale.grad) / 127, rel=1e-4)


@pytest.mark.parametrize("range_lr", [0.0, 0.05])
def test_symmetric_ranges_are_found_trained_and_loaded(range_lr, tmp_path):
    module = Conv()
    run = fit(module, QATCallback(profile=profiles.TensorRT(), range_lr=range_lr))
    for quantizer in quantizers_of(module).values():
        assert quantizer.symmetric
        assert float(quantizer.low) == -float(quantizer.high)
        assert int(quantizer.zero_point) == 128
    run.save_checkpoint(tmp_path / "m.ckpt")
    images = next(iter(loader()))[0]
    loaded = load_compressed(Conv, tmp_path / "m.ckpt").eval()
    assert torch.equal(loaded(images), module.eval()(images))


def test_a_checkpoint_from_before_symmetric_ranges_loads(tmp_path):
    module = Conv()
    fit(module, QATCallback()).save_checkpoint(tmp_path / "m.ckpt")
    checkpoint = torch.load(tmp_path / "m.ckpt", weights_only=True)
    for entry in checkpoint["compression_structures"]["quantization"]["quantizers"]:
        del entry["symmetric"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    images = next(iter(loader()))[0]
    assert torch.equal(load_compressed(Conv, tmp_path / "old.ckpt").eval()(images), module.eval()(images))


def test_biases_stay_as_they_are_for_a_runtime_that_adds_floats():
    rounded, floats = Classifier(), Classifier()
    floats.load_state_dict(rounded.state_dict())
    fit(rounded, QATCallback(profile=profiles.TensorRT(round_biases=True)))
    fit(floats, QATCallback(profile=profiles.TensorRT()))
    units = [
        quantizer.scale * (layer.weight.detach().abs().amax(1) / 127)
        for quantizer, layer in zip(quantizers_of(rounded).values(), (rounded.net[1], rounded.net[3]), strict=True)
    ]
    for layer, unit in zip((1, 3), units, strict=True):
        steps = rounded.net[layer].bias.detach() / unit
        assert torch.allclose(steps, steps.round(), atol=1e-2)
        assert not torch.equal(rounded.net[layer].bias, floats.net[layer].bias)


def test_a_profile_of_ones_own_and_bare_names():
    config = {"class_path": "QATCallback", "init_args": {"profile": "TensorRT"}}
    (profile,) = expanded(config)["init_args"].values()
    assert profile["class_path"] == "lightning_compress.quantization.profiles.TensorRT"
    assert QATCallback(profile=profiles.Profile(symmetric_activations=True)).profile.symmetric_activations
    assert repr(profiles.Mobile()) == "Mobile()"
    assert repr(profiles.Mobile(round_outputs=False)) == "Mobile(round_outputs=False)"
    with pytest.raises(TypeError, match="need round_branches as True or False, got 'no'"):
        profiles.OpenVINO(round_branches="no")


@resumes
def test_a_run_with_symmetric_learned_ranges_resumes(tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = Conv()
        callback = QATCallback(profile=profiles.TensorRT(), range_lr=0.05, every_n_steps=2)
        fit(module, callback, *callbacks, ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, (1, 6, 11))


def test_dynamic_activations_are_the_inputs_of_linear_layers():
    class Doubled(nn.Linear):
        def forward(self, x):
            return super().forward(2 * x)

    layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 16), nn.GELU(), Doubled(16, 16)
    module = Classifier(nn.Sequential(*layers, nn.Linear(16, 10)))
    with pytest.warns(UserWarning, match="no quantizer reaches the inputs of net.5"):
        fit(module, QATCallback(profile=profiles.Dynamic(), activation_bits=6))
    found = quantizers_of(module)
    assert {(place.module, place.side) for place in found} == {("net.3", "input"), ("net.6", "input")}
    assert all(isinstance(quantizer, RowQuantizer) and quantizer.bits == 6 for quantizer in found.values())


@resumes
def test_dynamic_activations_resume_and_are_loaded(tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = Classifier()
        callback = QATCallback(profile=profiles.Dynamic(), every_n_steps=2)
        fit(module, callback, *callbacks, ckpt_path=ckpt_path).save_checkpoint(tmp_path / "m.ckpt")
        return module

    uninterrupted(run, tmp_path, (1, 6, 11))
    module, images = run().eval(), next(iter(loader()))[0]
    loaded = load_compressed(Classifier, tmp_path / "m.ckpt").eval()
    archive = load_compressed(Classifier, export(module, tmp_path / "m.lcz")).eval()
    for other in (loaded, archive):
        assert quantizers_of(other).keys() == quantizers_of(module).keys() != set()
        assert torch.equal(other(images), module(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"range_lr": 0.1}, "need a profile with fixed ranges for range_lr, got range_lr=0.1 with profile=Dynamic"),
        ({"decay": 0.5, "freeze_ranges_at": 0.5}, "for decay and freeze_ranges_at, got .* they have no effect"),
    ],
)
def test_dynamic_activations_have_no_ranges_to_follow(arguments, message):
    with pytest.raises(ValueError, match=message):
        QATCallback(profile=profiles.Dynamic(), **arguments)


def test_dynamic_activations_exclude_rules_for_other_values():
    with pytest.raises(
        ValueError, match="need round_branches=False, round_biases=False beside dynamic_activations=True"
    ):
        profiles.Profile(dynamic_activations=True)
