import pytest
import torch

from lightning_compress.channels import ChannelPruningCallback, criteria
from lightning_compress.pruning import PruningCallback
from lightning_compress.schedules import Constant, Cubic, Linear
from tests.channels.nets import Module, Residual, data, trainer


def callback(**settings):
    return ChannelPruningCallback(**{"round_to": 2, "every_n_steps": 2, **settings})


class TestArguments:
    @pytest.mark.parametrize("macs", [0.0, 1.0, -1])
    def test_macs(self, macs):
        with pytest.raises(ValueError, match=f"need 0 < macs < 1, got macs={macs}"):
            ChannelPruningCallback(macs=macs)

    def test_round_to(self):
        with pytest.raises(ValueError, match="need round_to >= 1, got round_to=0"):
            ChannelPruningCallback(round_to=0)

    def test_momentum(self):
        with pytest.raises(ValueError, match="need 0 <= momentum < 1, got momentum=1"):
            ChannelPruningCallback(momentum=1)

    def test_reach(self):
        with pytest.raises(
            ValueError,
            match=r"need macs >= 1\.000 for this model with round_to=16, got macs=0\.5.*left alone: net\.head",
        ):
            trainer(callback(round_to=16)).fit(Module(), data())

    def test_two_prunings_of_a_weight(self):
        with pytest.raises(ValueError, match="need one callback of a kind per weight"):
            trainer(callback(), PruningCallback(0.5)).fit(Module(), data())


@pytest.mark.parametrize("criterion", [criteria.magnitude, criteria.taylor, criteria.batchnorm_scale])
def test_whole_channels_are_zero(criterion):
    torch.manual_seed(0)
    module = Module(weight_decay=0.1)
    pruning = callback(criterion=criterion)
    trainer(pruning).fit(module, data())
    assert 0.35 < pruning.metrics()["macs"] <= 0.5
    zero = {name: int((p.flatten(1) == 0).all(1).sum()) for name, p in module.net.named_parameters() if p.ndim == 4}
    assert zero["stem.weight"] == zero["conv2.weight"]
    assert sum(zero.values()) > 0
    gone = (module.net.conv1.weight.flatten(1) == 0).all(1)
    assert not module.net.norm1.weight[gone].any()
    assert not module.net.norm1.bias[gone].any()
    assert not module.net.conv2.weight[:, gone].any()


def test_the_budget_is_approached_along_the_schedule():
    module, seen = Module(), []

    class Watch(ChannelPruningCallback):
        def update(self, weights):
            super().update(weights)
            seen.append((self.strength, self.metrics()["macs"]))

    trainer(Watch(round_to=1, every_n_steps=1, schedule=Linear(0.1, 0.6))).fit(module, data())
    assert len(seen) > 5
    for strength, macs in seen:
        assert 1 - 0.5 * strength - 0.15 < macs <= 1 - 0.5 * strength


def test_excluded_layers_keep_their_channels():
    module = Module(net=Residual(16))
    trainer(callback(macs=0.6, exclude=("net.stem",))).fit(module, data())
    assert not (module.net.stem.weight.flatten(1) == 0).all(1).any()
    assert (module.net.conv1.weight.flatten(1) == 0).all(1).any()


def test_the_first_training_examples_are_looked_up_without_a_trace():
    seen = []

    class Watch(Module):
        def training_step(self, batch, batch_idx):
            seen.append((batch[0].sum().item(), torch.rand(()).item()))
            return super().training_step(batch, batch_idx)

    for callbacks in ([], [callback()]):
        torch.manual_seed(0)
        loader = torch.utils.data.DataLoader(data().dataset, 8, shuffle=True)
        trainer(*callbacks, max_steps=5, max_epochs=-1).fit(Watch(), loader)
    assert seen[:5] == seen[5:]


def test_data_without_an_index_needs_an_example():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(data().dataset)

    loader = torch.utils.data.DataLoader(Stream(), 8)
    with pytest.raises(ValueError, match=r"need an example input to find the channels.*example_input_array"):
        trainer(callback(), max_steps=5).fit(Module(), loader)
    trainer(callback(example_input=torch.zeros(2, 1, 8, 8)), max_steps=5).fit(Module(), loader)


def test_named_inputs():
    class Named(Module):
        def forward(self, pixels):
            return self.net(pixels)

        def training_step(self, batch, batch_idx):
            return super().training_step((batch["pixels"], batch["label"]), batch_idx)

    samples = [{"pixels": x, "label": y} for x, y in data().dataset]
    trainer(callback(), max_steps=4).fit(Named(), torch.utils.data.DataLoader(samples, 8))


def test_a_schedule_that_starts_at_once():
    pruning = callback(schedule=Constant())
    trainer(pruning, max_steps=2).fit(Module(), data())
    assert pruning.metrics()["macs"] <= 0.5
