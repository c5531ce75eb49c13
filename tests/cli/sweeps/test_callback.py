import json

import pytest
import torch

from lightning_compress.cli.sweeps.callback import ValidationLog
from tests.support.toys import Digits, build, fit, held_out


class Diverging(Digits):
    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("nan", torch.tensor(torch.nan))


@pytest.mark.parametrize("checks", [0, 1])
def test_every_validation_is_a_line_of_its_finite_metrics(checks, tmp_path):
    path = tmp_path / "log.jsonl"
    module = build(kind=Diverging)
    trainer = fit(module, ValidationLog(path), max_epochs=2, num_sanity_val_steps=checks)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 2
    final = {name: value.item() for name, value in trainer.callback_metrics.items() if name != "nan"}
    assert lines[-1] == final
    trainer.validate(module, held_out(), verbose=False)
    assert len(path.read_text().splitlines()) == 2
