"""The bytes of the archive of a module."""

import torch
from torch import nn

from lightning_compress import export
from lightning_compress.search.budget.choice.files import archive_size, size_without
from lightning_compress.targets import select
from tests.support.toys import build


def targets(module):
    return {target.name: target for target in select(module)}


def test_they_are_those_of_the_file_that_export_writes(tmp_path):
    module = build()
    assert archive_size(module, {}, {}) == export(module, tmp_path / "m.lcz").stat().st_size


def test_values_take_the_place_of_the_targets(tmp_path):
    module, sign = build(), {}
    for name, target in targets(module).items():
        sign[name] = target.parameter.detach().sign()
    size = archive_size(module, targets(module), sign)
    for name, weight in sign.items():
        module.get_parameter(name).data.copy_(weight)
    assert size == export(module, tmp_path / "m.lcz").stat().st_size


def test_a_tied_weight_counts_once():
    module = nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30))
    module[1].weight = module[0].weight
    (target,) = targets(module).values()
    values = {target.name: torch.randn(30, 30)}
    untied = nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 30))
    twice = {name: torch.randn(30, 30) for name in targets(untied)}
    assert archive_size(module, targets(module), values) < archive_size(untied, targets(untied), twice) - 2000


def test_all_but_the_targets():
    module = nn.Linear(1000, 10)
    assert 40 < size_without(module, targets(module)) < 150
