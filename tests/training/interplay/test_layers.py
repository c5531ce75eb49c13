"""Layers that are replaced, added or unfrozen in the middle of a run."""

import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import nn

from lightning_compress import (
    BinarizationCallback,
    ChannelPruningCallback,
    LowRankCallback,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
)
from lightning_compress.pruning import criteria
from lightning_compress.schedules import Constant, Linear
from lightning_compress.training.interplay.layers import LayerWatch
from tests.support.promises import all_of, at_most, binary, sparsity, values
from tests.support.runs import Save, resumes
from tests.support.toys import Digits, build, fit

RAMP = Linear(0.0, 0.2)  # of 36 steps: done at 8, before the layers change

METHODS = {
    "pruning": (lambda: [PruningCallback(0.8, schedule=RAMP, scope="layer")], sparsity(0.8)),
    "taylor": (lambda: [PruningCallback(0.8, schedule=RAMP, criterion=criteria.taylor)], sparsity(0.8)),
    "wanda": (lambda: [PruningCallback(0.8, schedule=RAMP, criterion=criteria.wanda)], sparsity(0.8)),
    "regrowth": (lambda: [PruningCallback(0.8, schedule=RAMP, scope="layer", regrow=True)], sparsity(0.8)),
    "sharing": (lambda: [WeightSharingCallback(8, schedule=RAMP, every_n_steps=3)], values(8)),
    "sharing of one codebook": (
        lambda: [WeightSharingCallback(8, schedule=Constant(), scope="global", every_n_steps=3)],
        values(8),
    ),
    "bits": (lambda: [QATCallback(4, activation_bits=None, every_n_steps=3)], at_most(16)),
    "binary": (lambda: [BinarizationCallback(every_n_steps=3)], binary),
    "pruning and sharing": (
        lambda: [
            PruningCallback(0.8, schedule=RAMP, scope="layer"),
            WeightSharingCallback(8, schedule=RAMP, every_n_steps=3),
        ],
        all_of(sparsity(0.8), values(8)),
    ),
}


class Grown(Digits):
    """A new head takes the place of the old one, in one of the hooks of the module."""

    hook, epoch = "on_train_epoch_start", 1

    def replace(self):
        self.net[11] = nn.Linear(32, 10)
        self.optimizers().add_param_group({"params": self.net[11].parameters()})

    def on_train_epoch_start(self):
        if self.hook == "on_train_epoch_start" and self.current_epoch == self.epoch:
            self.replace()

    def on_train_start(self):
        if self.hook == "on_train_start":
            with torch.no_grad():
                self.net[9].weight = nn.Parameter(self.net[9].weight * 2)
            self.optimizers().add_param_group({"params": [self.net[9].weight]})

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.hook == "on_train_batch_end" and (self.current_epoch, batch_idx) == (self.epoch, 11):
            self.replace()

    def on_train_end(self):
        if self.hook == "on_train_end":
            self.replace()


def grown(hook):
    module = build(kind=Grown)
    module.hook = hook
    module.configure_optimizers = lambda: torch.optim.AdamW(module.parameters(), 3e-3)
    return module


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("hook", ["on_train_start", "on_train_epoch_start", "on_train_batch_end"])
def test_a_new_layer_is_compressed(method, hook):
    callbacks, promise = METHODS[method]
    module, (callback, *others) = grown(hook), callbacks()
    fit(module, callback, *others)
    promise(module)
    assert callback.report()["weights"] == 3592
    assert callback.targets["net.11.weight"].parameter is module.net[11].weight


@pytest.mark.parametrize("method", ["pruning", "sharing", "bits"])
def test_a_layer_that_comes_after_the_last_batch_is_compressed(method):
    callbacks, promise = METHODS[method]
    module = grown("on_train_end")
    fit(module, *callbacks())
    promise(module)


@pytest.mark.parametrize(
    "callback",
    [QATCallback(8), ChannelPruningCallback(0.5, round_to=4, remove=False), LowRankCallback(split=False)],
    ids=lambda callback: type(callback).__name__,
)
def test_a_new_layer_is_refused_where_it_cannot_be_compressed(callback):
    with pytest.raises(ValueError, match=rf"{type(callback).__name__} compresses until fit ends, got others in"):
        fit(grown("on_train_epoch_start"), callback)


class Widened(Digits):
    """A branch that the module did not have joins in the middle of the run."""

    def forward(self, images):
        scores = super().forward(images)
        return scores + self.branch(images.flatten(1)) if hasattr(self, "branch") else scores

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            self.branch = nn.Linear(64, 10)
            self.optimizers().add_param_group({"params": self.branch.parameters()})


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_that_is_added_is_compressed(method):
    make, promise = METHODS[method]
    callbacks, module = make(), build(kind=Widened)
    fit(module, *callbacks)
    assert all("branch.weight" in callback.targets for callback in callbacks)
    promise(module)


@pytest.mark.parametrize(
    "callback",
    [ChannelPruningCallback(macs=0.7, round_to=1), LowRankCallback(parameters=0.5)],
    ids=["channels", "rank"],
)
def test_a_layer_that_is_added_is_refused_where_it_cannot_be_compressed(callback):
    with pytest.raises(
        ValueError, match=r"need all layers when fit begins for \w+, got branch.weight while it runs: add"
    ):
        fit(build(kind=Widened), callback)


def test_a_layer_that_is_added_and_excluded_stays_dense():
    callback, module = PruningCallback(0.8, schedule=RAMP, include=("net.*",)), build(kind=Widened)
    fit(module, callback)
    assert "branch.weight" not in callback.targets
    assert (module.branch.weight != 0).all()


def test_a_layer_that_is_excluded_may_be_replaced():
    fit(grown("on_train_epoch_start"), QATCallback(8, exclude=("net.11",)), max_epochs=2)


def test_a_layer_that_leaves_is_named():
    class Weightless(Grown):
        def replace(self):
            self.net[11] = nn.Flatten()

    module = build(kind=Weightless)
    with pytest.raises(ValueError, match=r"got a module without net\.11\.weight: name them in exclude"):
        fit(module, PruningCallback(0.5, schedule=RAMP))


class Backbone(Digits):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.backbone, self.head = self.net[:9], self.net[9:]

    def configure_optimizers(self):
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], 3e-3)


def finetuning():
    return BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_ratio_lr=0.5, train_bn=False)


@pytest.mark.parametrize("method", METHODS)
def test_a_backbone_that_is_unfrozen_joins(method):
    callbacks, promise = METHODS[method]
    module, (callback, *others) = build(kind=Backbone), callbacks()
    fit(module, callback, *others, finetuning())
    promise(module)
    assert callback.report()["weights"] == 3592


@resumes
@pytest.mark.parametrize("method", ["pruning", "sharing", "bits"])
def test_a_backbone_that_joined_is_resumed(method, tmp_path):
    callbacks, promise = METHODS[method]
    whole, resumed = build(kind=Backbone), build(kind=Backbone)
    fit(whole, *callbacks(), finetuning(), Save(tmp_path, [17]))
    fit(resumed, *callbacks(), finetuning(), ckpt_path=tmp_path / "step=17.ckpt")
    promise(resumed)


def test_a_backbone_that_stays_dense_is_named():
    with pytest.warns(UserWarning, match=r"QATCallback leaves .*0\.weight.* alone, which were frozen when fit began"):
        fit(build(kind=Backbone), QATCallback(8), finetuning())


def test_own_changes_are_noticed():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    assert not LayerWatch(module).changed
    for change in (
        lambda: module.append(nn.ReLU()),
        lambda: module[1].requires_grad_(True),
        lambda: module.__setitem__(0, nn.Linear(2, 2)),
        lambda: setattr(module[0], "weight", nn.Parameter(torch.zeros(2, 2))),
        lambda: module[0].register_parameter("more", nn.Parameter(torch.zeros(1))),
    ):
        watch = LayerWatch(module)
        change()
        assert watch.changed
