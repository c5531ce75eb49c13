"""Weights that are swapped for a validation, as schedule-free optimizers and averages of the user's own do."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_compress import BinarizationCallback, PruningCallback, QATCallback, WeightSharingCallback
from lightning_compress.schedules import Linear
from tests.support.promises import at_most, binary, sparsity, values
from tests.support.runs import Save, differing
from tests.support.toys import Digits, build, fit


class Average(L.Callback):
    """An average of the weights, swapped in by ``copy`` or by arithmetic."""

    def __init__(self, arithmetic=False, start="on_validation_start", end="on_validation_end"):
        self.arithmetic = arithmetic
        setattr(self, start, self.swap)
        setattr(self, end, self.back)

    def on_fit_start(self, trainer, pl_module):
        self.mean = [parameter.detach().clone() for parameter in pl_module.parameters()]

    def on_train_batch_end(self, trainer, pl_module, *_):
        torch._foreach_lerp_(self.mean, [parameter.detach() for parameter in pl_module.parameters()], 0.2)

    @torch.no_grad()
    def swap(self, trainer, pl_module):
        self.held = [parameter.clone() for parameter in pl_module.parameters()]
        self.difference = [mean - held for mean, held in zip(self.mean, self.held, strict=True)]
        for parameter, difference in zip(pl_module.parameters(), self.difference, strict=True):
            parameter.add_(difference)

    @torch.no_grad()
    def back(self, trainer, pl_module):
        for parameter, held, difference in zip(pl_module.parameters(), self.held, self.difference, strict=True):
            if self.arithmetic:
                parameter.sub_(difference)
            else:
                parameter.copy_(held)


class ScheduleFree(torch.optim.SGD):
    """Steps one sequence of weights and validates another, between which it moves by interpolation."""

    def __init__(self, parameters, lr=0.05):
        super().__init__(parameters, lr)
        self.means = [parameter.detach().clone() for group in self.param_groups for parameter in group["params"]]

    def move(self, weight):
        for parameter, mean in zip(self.param_groups[0]["params"], self.means, strict=True):
            parameter.data.lerp_(mean, weight)

    def step(self, closure=None):
        loss = super().step(closure)
        torch._foreach_lerp_(self.means, [p.detach() for p in self.param_groups[0]["params"]], 0.1)
        return loss


class Swapping(Digits):
    def configure_optimizers(self):
        return ScheduleFree(self.parameters())

    def on_validation_epoch_start(self):
        self.optimizers().optimizer.move(0.9)

    def on_validation_epoch_end(self):
        self.optimizers().optimizer.move(-9.0)


METHODS = {
    "pruning": (lambda: PruningCallback(0.9, schedule=Linear(0.0, 0.3), every_n_steps=3), sparsity(0.9)),
    "regrowth": (lambda: PruningCallback(0.9, schedule=Linear(0.0, 0.3), regrow=True), sparsity(0.9)),
    "sharing": (lambda: WeightSharingCallback(8, schedule=Linear(0.0, 0.3), every_n_steps=3), values(8)),
    "bits": (lambda: QATCallback(4, activation_bits=None, every_n_steps=3), at_most(16)),
    "binary": (lambda: BinarizationCallback(every_n_steps=3), binary),
}
HOOKS = [("on_validation_start", "on_validation_end"), ("on_validation_epoch_start", "on_validation_epoch_end")]


def validated(module):
    """A list that fills with the weights with which the network is validated, after the first epoch."""
    states = []

    def look(net, inputs, outputs):
        if not net.training and module.current_epoch > 0:
            states.append({name: value.clone() for name, value in net.state_dict().items()})

    module.net.register_forward_hook(look)
    return states


def check(promise, states):
    assert len(states) == 2
    for state in states:
        module = build()
        module.net.load_state_dict(state)
        promise(module)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("hooks", HOOKS, ids=["outer", "inner"])
@pytest.mark.parametrize("arithmetic", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_an_average_of_ones_own_is_validated_compressed(method, hooks, arithmetic, first):
    callback, promise = METHODS[method]
    ours, average, module, latents = callback(), Average(arithmetic, *hooks), build(), []
    states = validated(module)

    class Look(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            latents.append(pl_module.net[9].weight.detach().clone())

    fit(module, *((average, ours) if first else (ours, average)), Look())
    check(promise, states)
    promise(module)
    alone, expected = build(), latents.copy()
    latents.clear()
    fit(alone, callback(), Look())
    torch.testing.assert_close(expected[12], latents[12], rtol=0, atol=1e-6)  # the first step after a validation
    assert arithmetic or differing(module, alone) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_schedule_free_optimizer_validates_compressed_weights(method):
    callback, promise = METHODS[method]
    module = build(kind=Swapping)
    states = validated(module)
    fit(module, callback())
    check(promise, states)
    promise(module)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weights_only", [False, True])
def test_a_checkpoint_of_swapped_weights_is_compressed(method, weights_only, tmp_path):
    callback, promise = METHODS[method]
    saving = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, save_weights_only=weights_only, monitor=None)

    class Never(Average):
        """Swaps for as long as checkpoints are written."""

        def back(self, trainer, pl_module):
            if trainer.fit_loop.epoch_loop._should_check_val_epoch:
                self.later = True

        def on_train_epoch_end(self, trainer, pl_module):
            super().back(trainer, pl_module)

    fit(build(), callback(), Never(end="on_validation_end"), saving, Save(tmp_path, [30], weights_only=weights_only))
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert len(paths) >= 3
    for path in paths:
        if path.stem != "step=12":  # before full strength
            module = build()
            module.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
            promise(module)
