"""Optimizers of the user's: torch calls the hooks of a class that calls ``super().step()`` twice."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_compress import (
    BinarizationCallback,
    LowRankCallback,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
)
from lightning_compress.pruning import NM, criteria
from lightning_compress.schedules import Linear
from tests.support.runs import same, trainer

RATE, DECAY = 0.05, 0.999
METHODS = {
    "pruning": lambda: PruningCallback(0.8, schedule=Linear(0.0, 0.5)),
    "regrowth": lambda: PruningCallback(0.8, regrow=True, schedule=Linear(0.0, 0.5)),
    "regrowth by taylor": lambda: PruningCallback(0.8, regrow=True, criterion=criteria.taylor),
    "2:4": lambda: PruningCallback(pattern=NM(2, 4), regrow=True),
    "sharing": lambda: WeightSharingCallback(4),
    "4 bits": lambda: QATCallback(4, activation_bits=None),
    "8 bits": lambda: QATCallback(8),
    "binary": lambda: BinarizationCallback(),
    "low rank": lambda: LowRankCallback(0.5, split=False),
}


class Whole(torch.optim.Optimizer):
    """Gradient descent and the decay of all weights in one step."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": RATE})

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure() if closure else None
        for parameter in self.param_groups[0]["params"]:
            parameter.add_(parameter.grad, alpha=-RATE).mul_(DECAY)
        return loss


class Plain(torch.optim.SGD):
    def __init__(self, parameters):
        super().__init__(parameters, RATE)


class Child(Plain):
    """The same in two: the step of the parent class, which torch has given hooks as well, and the decay."""

    def __init__(self, parameters):
        parameters = list(parameters)
        Plain(parameters), torch.optim.SGD(parameters)  # torch gives a class its hooks when the first one is built
        super().__init__(parameters)

    def step(self, closure=None):
        loss = super().step(closure)
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.mul_(DECAY)
        return loss


class Regression(L.LightningModule):
    def __init__(self, optimizer, *, manual=False):
        super().__init__()
        self.automatic_optimization, self.optimizer = not manual, optimizer
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))

    def training_step(self, batch, batch_idx):
        loss = F.mse_loss(self.net(batch), batch.roll(1, 0)[:, :8])
        if self.automatic_optimization:
            return loss
        self.optimizers().zero_grad()
        self.manual_backward(loss)
        self.optimizers().step()
        return None

    def configure_optimizers(self):
        return self.optimizer(self.parameters())


def fit(module, callback):
    batches = torch.randn(20, 4, 16, generator=torch.Generator().manual_seed(1))
    trainer(callback, max_epochs=2).fit(module, batches)
    return module


@pytest.mark.parametrize("manual", [False, True], ids=["automatic", "manual"])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_calls_that_of_its_parent_class_is_one_step(method, manual):
    whole, child = (fit(Regression(optimizer, manual=manual), METHODS[method]()) for optimizer in (Whole, Child))
    assert same(whole, child)


def test_torch_calls_the_hooks_twice():
    """The reason; if this fails, torch has changed, and hooks may be simpler."""
    calls, optimizer = [], Child([nn.Parameter(torch.zeros(1))])
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.param_groups[0]["params"][0].grad = torch.zeros(1)
    optimizer.step()
    assert len(calls) > 1


class FailsOnce(Child):
    """Fails when the gradients are there, as for want of memory."""

    failed = False

    def step(self, closure=None):
        if not self.failed:
            self.failed = True
            closure()
            raise MemoryError
        return super().step(closure)


class GoesOn(Regression):
    """Goes on with the next batch after a step that failed; ``skip`` leaves the first step out after its forward."""

    def __init__(self, optimizer, *, skip=False):
        super().__init__(optimizer, manual=True)
        self.skip = skip

    def training_step(self, batch, batch_idx):
        if self.skip and self.global_step == batch_idx == self.current_epoch == 0:
            self.net(batch)
            return None
        try:
            return super().training_step(batch, batch_idx)
        except MemoryError:
            return None


@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_failed_is_no_step(method):
    modules = GoesOn(FailsOnce), GoesOn(Child, skip=True)
    for module in modules:
        fit(module, METHODS[method]())
        assert module.trainer.global_step == 39
    assert same(*modules)


class Heedless(torch.optim.SGD):
    """Never calls its closure, as Ranger of torch_optimizer."""

    def __init__(self, parameters):
        super().__init__(parameters, RATE)

    def step(self, closure=None):
        return super().step()


def test_an_optimizer_that_leaves_its_closure_out_is_refused():
    with pytest.raises(ValueError, match=r"need an optimizer whose step\(\) calls its closure, .* got Heedless"):
        fit(Regression(Heedless, manual=True), PruningCallback(0.5))
