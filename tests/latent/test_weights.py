from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from lightning_compress import NM, BinarizationCallback, PruningCallback, QATCallback, WeightSharingCallback, blocks
from lightning_compress.latent import LatentWeights
from lightning_compress.pruning import criteria, thresholds
from lightning_compress.quantization import scales
from lightning_compress.quantization.granularities import PerTensor
from lightning_compress.targets import select
from lightning_compress.training import WeightCompression


class Keep:
    """Projects onto the weights above a bound, which update sets to the mean; the gradient is halved on the way."""

    masks_in_place = False

    def __init__(self, active, bound=0.0):
        self.active, self.bound = set(active), bound

    def update(self, weights):
        self.bound = torch.cat([w.flatten() for w in weights.values()]).mean().item()

    def project_(self, weights):
        for weight in weights.values():
            weight.mul_(weight > self.bound)

    def backward_(self, gradients, latents):
        for gradient in gradients.values():
            gradient.mul_(0.5)


class Round:
    masks_in_place = False

    def __init__(self, active):
        self.active = set(active)

    def update(self, weights):
        pass

    def project_(self, weights):
        for weight in weights.values():
            weight.round_()

    def backward_(self, gradients, latents):
        for gradient in gradients.values():
            gradient.add_(1.0)


@pytest.fixture
def parameters():
    return {name: nn.Parameter(torch.tensor(values)) for name, values in {"a": [0.3, -2.6], "b": [1.7, 0.9]}.items()}


def test_the_loop_of_binaryconnect(parameters):
    """Against the loop written out: the gradient is taken at round(w), the step is made at w."""
    weights = LatentWeights(parameters, [Round("ab")])
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1, momentum=0.9, weight_decay=0.01)
    latent = {name: p.detach().numpy().astype(np.float64) for name, p in parameters.items()}
    momentum = dict.fromkeys(parameters, 0.0)
    weights.compress("ab")
    for _ in range(5):
        loss = sum((p**3).sum() for p in parameters.values())
        optimizer.zero_grad()
        loss.backward()
        weights.restore("ab")
        optimizer.step()
        weights.compress("ab")
        for name in latent:
            momentum[name] = 0.9 * momentum[name] + 3 * np.round(latent[name]) ** 2 + 0.01 * latent[name]
            latent[name] = latent[name] - 0.1 * momentum[name]
            np.testing.assert_allclose(weights.latents()[name], latent[name], rtol=1e-4)
            np.testing.assert_allclose(parameters[name].detach(), np.round(weights.latents()[name].numpy()), rtol=0)


def test_projections_apply_in_order_and_gradients_go_back_in_reverse(parameters):
    weights = LatentWeights(parameters, [Keep("a", bound=0.5), Round("ab")])
    weights.compress("ab")
    assert parameters["a"].tolist() == [0.0, 0.0]
    assert parameters["b"].tolist() == [2.0, 1.0]
    gradients = {"a": torch.ones(2), "b": torch.ones(2)}
    weights.backward(gradients)
    assert gradients["a"].tolist() == [1.0, 1.0]  # (1 + 1) / 2
    assert gradients["b"].tolist() == [2.0, 2.0]


def test_a_parameter_without_active_projection_costs_nothing(parameters):
    keep = Keep("")
    weights = LatentWeights(parameters, [keep])
    weights.compress("ab")
    weights.restore("ab")
    assert weights.empty
    assert not weights.restored
    keep.active = {"b"}
    weights.compress("ab")
    assert weights.latents().keys() == {"b"}


def test_update_updates_from_what_earlier_projections_left(parameters):
    round_, keep = Round("ab"), Keep("ab", bound=-100.0)
    weights = LatentWeights(parameters, [round_, keep])
    weights.compress("ab")
    weights.update([keep])
    assert keep.bound == pytest.approx((0 - 3 + 2 + 1) / 4)
    assert parameters["a"].tolist() == [0.0, -0.0]
    assert weights.latents()["a"].tolist() == pytest.approx([0.3, -2.6])


def test_update_while_an_optimizer_holds_its_latents(parameters):
    keep = Keep("ab", bound=0.5)
    weights = LatentWeights(parameters, [keep])
    weights.compress("ab")
    weights.restore("a")
    with torch.no_grad():
        parameters["a"].add_(1.0)  # the optimizer's step
    weights.compress(weights.restored)
    assert weights.latents()["a"].tolist() == pytest.approx([1.3, -1.6])
    assert not weights.restored


def test_adopt_takes_what_another_hand_wrote(parameters):
    weights = LatentWeights(parameters, [Round("ab")])
    weights.compress("ab")
    with torch.no_grad():
        parameters["a"].fill_(7.4)
    weights.adopt()
    assert parameters["a"].tolist() == [7.0, 7.0]
    assert weights.latents()["a"].tolist() == pytest.approx([7.4, 7.4])
    assert weights.latents()["b"].tolist() == pytest.approx([1.7, 0.9])


def test_save_and_load(parameters):
    weights = LatentWeights(parameters, [Round("ab")])
    weights.compress("ab")
    saved = {name: latent.clone() for name, latent in weights.save().items()}
    weights.drop()
    assert weights.empty
    weights.load(saved)
    weights.restore("ab")
    assert parameters["a"].tolist() == pytest.approx([0.3, -2.6])


def test_latents_of_another_model_are_refused(parameters):
    weights = LatentWeights(parameters, [Round("ab")])
    with pytest.raises(ValueError, match=r"need latent weights of the targeted parameters, got 'c' of shape \(2,\)"):
        weights.load({"c": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"got 'a' of shape \(3,\)"):
        weights.load({"a": torch.zeros(3)})


def test_a_projection_that_waits_leaves_no_latent(parameters):
    class Waiting(Round):
        def update(self, weights):
            self.active = set()

        def project_(self, weights):
            pass

    waiting = Waiting("ab")
    weights = LatentWeights(parameters, [waiting])
    weights.update([waiting])
    assert parameters["a"].tolist() == pytest.approx([0.3, -2.6])
    assert weights.empty
    weights.restore("ab")
    with torch.no_grad():
        parameters["a"].add_(1.0)
    weights.compress("ab")
    weights.restore("ab")
    assert parameters["a"].tolist() == pytest.approx([1.3, -1.6])
    assert not weights.restored


def test_an_offset_is_projected_with_the_latent_and_taken_off_again(parameters):
    """Against the sum written out; offset and latent are binary fractions, so that nothing is rounded."""
    weights, offset = LatentWeights(parameters, [Round("ab")]), torch.tensor([0.25, 0.75])
    parameters["a"].requires_grad_(False).copy_(torch.tensor([0.5, -2.5]))
    weights.offsets = {"a": lambda: offset}
    weights.update([])
    assert parameters["a"].tolist() == [0.75, -2.75]  # round(0.75) - 0.25, round(-1.75) - 0.75
    offset.mul_(-1)
    weights.compress((), moved=["a", "b"])
    assert parameters["a"].tolist() == [0.25, -2.25]  # round(0.25) + 0.25, round(-3.25) + 0.75
    assert weights.latents()["a"].tolist() == [0.5, -2.5]
    assert parameters["b"].tolist() == [2.0, 1.0]
    assert not weights.overwritten()
    assert [sums["a"].tolist() for _, sums in weights.stages()] == [[0.0, -3.0]]


def test_nobody_changes_the_latent_of_a_frozen_parameter(parameters):
    """An optimizer that holds it, an average in its place: the latent stays, the offset moves it."""
    weights = LatentWeights(parameters, [Round("a")])
    parameters["a"].requires_grad_(False).copy_(torch.tensor([0.5, -2.5]))
    weights.offsets = {"a": lambda: torch.tensor([0.25, 0.75])}
    weights.update([])
    parameters["a"].copy_(torch.tensor([9.0, 9.0]))
    assert weights.compressed({"a": parameters["a"]})["a"].tolist() == [0.75, -2.75]
    weights.compress(["a"])
    weights.adopt()
    assert parameters["a"].tolist() == [0.75, -2.75]
    assert weights.latents()["a"].tolist() == [0.5, -2.5]


def test_a_trained_parameter_with_an_offset_is_exchanged(parameters):
    weights = LatentWeights(parameters, [Round("a")])
    weights.offsets = {"a": lambda: torch.tensor([0.25, 0.75])}
    weights.update([])
    weights.restore(["a"])
    assert parameters["a"].tolist() == pytest.approx([0.3, -2.6])
    with torch.no_grad():
        parameters["a"].add_(1.0)
    weights.compress(["a"])
    assert parameters["a"].tolist() == [1.75, -1.75]  # round(1.55) - 0.25, round(-0.85) - 0.75
    assert weights.latents()["a"].tolist() == pytest.approx([1.3, -1.6])


def test_a_mask_with_an_offset_leaves_the_latent_as_it_is():
    """Without an exchange the latent would be read from the parameter, which lost its last bits to the offset."""

    class Mask(Keep):
        masks_in_place = True

    latent = torch.rand(1000, generator=torch.Generator().manual_seed(0)) - 0.5
    parameter = nn.Parameter(latent.clone(), requires_grad=False)
    weights, offset = LatentWeights({"p": parameter}, [Mask("p")]), torch.full((1000,), 3.7)
    weights.offsets = {"p": lambda: offset}
    for _ in range(10):
        offset.mul_(-0.9)
        weights.compress((), moved=["p"]) if not weights.empty else weights.update([])
    assert torch.equal(weights.latents()["p"], latent)
    assert torch.equal(parameter + offset == 0, latent + offset <= 0)


def test_a_short_weight_is_projected_in_the_precision_of_its_offset():
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]), requires_grad=False).bfloat16()
    weights = LatentWeights({"p": parameter}, [Round("p")])
    weights.offsets = {"p": lambda: torch.tensor([0.499, 0.501])}
    weights.update([])
    assert parameter.tolist() == torch.tensor([1 - 0.499, 3 - 0.501]).bfloat16().tolist()


SIDE = 512
BYTES = 4 * SIDE * SIDE


def peak(run: Callable[[], object]) -> int:
    """The most bytes that torch held at one time beyond those before, for CPU tensors."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    changes = [event.nbytes() for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert changes
    held = most = 0
    for change in changes:
        held += change
        most = max(most, held)
    return most


METHODS: Mapping[str, tuple[Callable[[], WeightCompression], float, float]] = {
    "magnitudes": (lambda: PruningCallback(0.9), 2.1, 1.1),
    "layers": (lambda: PruningCallback(0.9, scope="layer"), 2.1, 1.1),
    "2:4": (lambda: PruningCallback(pattern=NM(2, 4)), 2.1, 1.1),
    "scores of the whole weight": (lambda: PruningCallback(0.9, criterion=criteria.random), 3.9, 1.1),
    "8 bits": (lambda: QATCallback(8, activation_bits=None), 1.1, 1.1),
    "least error": (lambda: QATCallback(4, activation_bits=None, scale=scales.mse), 1.3, 1.1),
    "one scale": (lambda: QATCallback(8, activation_bits=None, granularity=PerTensor()), 1.1, 1.1),
    "binary": (BinarizationCallback, 1.2, 1.1),
    "16 values": (lambda: WeightSharingCallback(16), 2.2, 1.8),  # besides: NumPy sorts one more copy
}
"""Name -> method, most memory of an update, and of a comparison with the latents, in multiples of the weights."""


@pytest.mark.parametrize("name", METHODS)
def test_an_update_takes_little_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_ON_CPU", 1 << 12)
    monkeypatch.setattr(thresholds, "_FEW", 1 << 10)
    monkeypatch.setattr(thresholds, "_BUFFER", 1 << 10)
    make, updated, compared = METHODS[name]
    net = nn.Sequential(nn.Linear(SIDE, SIDE, bias=False))
    method = make()
    method.begin(select(net))
    method.strength = 1.0
    latents = LatentWeights({"0.weight": net[0].weight}, [method])

    def update_twice() -> None:
        latents.update([method])
        latents.update([method])

    assert peak(update_twice) <= updated * BYTES
    before = net[0].weight.detach().clone()
    for compare in (latents.adopt, latents.overwritten, lambda: list(latents.stages())):
        assert peak(compare) <= (compared + 0.25) * BYTES
    assert torch.equal(net[0].weight.detach(), before)


def test_a_step_beside_adapters_takes_the_memory_of_one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_ON_CPU", 1 << 12)
    layers = {str(number): nn.Parameter(torch.randn(SIDE, SIDE), requires_grad=False) for number in range(6)}
    thin = torch.randn(SIDE, 2)
    weights = LatentWeights(layers, [Round(layers)])
    weights.offsets = {name: lambda: thin @ thin.t() for name in layers}
    weights.update([])
    assert peak(lambda: weights.compress((), moved=list(layers))) <= 2.1 * BYTES  # the sum of one layer and its next
    for compare in (weights.adopt, weights.overwritten):
        assert peak(compare) <= 3.2 * BYTES
