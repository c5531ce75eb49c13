import copy

import pytest
import torch
from torch import nn

from lightning_compress.channels.dependencies.removable import find_removable
from lightning_compress.channels.groups import removed_entries
from lightning_compress.channels.removal.surgery import narrow, remove_units_
from tests.support.nets import Residual, step

IMAGES = torch.zeros(2, 1, 8, 8)
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd fused": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, 1e-2, amsgrad=True, weight_decay=0.1),
    "adamw foreach": lambda p: torch.optim.AdamW(p, 1e-2, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, 1e-2, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-2, momentum=0.9, centered=True),
    "nadam": lambda p: torch.optim.NAdam(p, 1e-2),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_the_narrowed_model_trains_on_like_the_masked_one(make):
    torch.manual_seed(0)
    model = Residual()
    plan = find_removable(model, IMAGES)
    model.double()
    removed = {group.name: torch.arange(group.units) % 2 == 1 for group in plan.groups}
    gone = removed_entries(plan.groups, removed)
    optimizer = make(model.parameters())
    for number in range(4):
        step(model, optimizer, number, gone)
    masked, follower = copy.deepcopy((model, optimizer))  # one memo: the copied optimizer steps the copied model
    remove_units_(model, plan.groups, removed, [optimizer])
    for number in range(4, 12):
        step(model, optimizer, number)
        step(masked, follower, number, gone)
    expected = {name: narrow(t, gone.get(name, {})) for name, t in masked.state_dict().items()}
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-9, atol=1e-12)
    assert all(value.shape in ((), p.shape) for p, s in optimizer.state.items() for value in s.values())


def test_every_parameter_goes_on_training_in_its_own_group():
    model = Residual()
    plan = find_removable(model, IMAGES)
    groups = [
        {"params": [model.head.weight]},
        {"params": [p for p in model.parameters() if p is not model.head.weight]},
    ]
    optimizer = torch.optim.SGD(groups, 0.1)
    remove_units_(model, plan.groups, {g.name: torch.arange(g.units) < 2 for g in plan.groups}, [optimizer])
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}
    assert optimizer.param_groups[0]["params"][0] is model.head.weight


def test_gradients_and_frozen_weights_are_kept():
    model = Residual()
    plan = find_removable(model, IMAGES)
    model(torch.randn(2, 1, 8, 8)).sum().backward()
    model.stem.requires_grad_(False)
    before = model.conv1.weight.grad
    group = next(g for g in plan.groups if g.name == "conv1")
    remove_units_(model, [group], {"conv1": torch.arange(16) < 4})
    assert torch.equal(model.conv1.weight.grad, before[4:])
    assert not model.stem.weight.requires_grad


def test_a_tied_weight_stays_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.one, self.two, self.last = (nn.Linear(8, 8, bias=False) for _ in range(4))
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.last(torch.relu(self.two(torch.relu(self.one(torch.relu(self.first(x)))))))

    model = Tied()
    plan = find_removable(model, torch.randn(2, 8))
    removed = {g.name: torch.arange(g.units) < 4 for g in plan.groups}
    remove_units_(model, plan.groups, removed)
    assert model.two.weight is model.one.weight
    model(torch.randn(2, 8))


def test_state_without_an_entry_per_weight_is_refused():
    model = Residual()
    plan = find_removable(model, IMAGES)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    optimizer.state[model.conv1.weight]["odd"] = torch.zeros(5)
    with pytest.raises(ValueError, match=r"need optimizer state of the shape of the weight.*'odd' of shape \(5,\)"):
        remove_units_(model, plan.groups, {g.name: torch.arange(g.units) < 2 for g in plan.groups}, [optimizer])
