"""Carried records go into every checkpoint and are attached in their order, whichever method came first."""

import pytest
from torch import nn

from lightning_compress.carried import ATTACHMENTS, LAYERS, SHAPES, Structure, carry


class Hooks(nn.Module):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["own"] = 1

    def on_load_checkpoint(self, checkpoint):
        self.seen.append("own")


@pytest.mark.parametrize("names", [("layers", "shapes", "attachments"), ("attachments", "layers", "shapes")])
def test_records_are_attached_in_order_before_the_hook_of_the_module(names):
    orders = {"layers": LAYERS, "shapes": SHAPES, "attachments": ATTACHMENTS}
    module, checkpoint = Hooks(), {}
    module.seen = []
    for name in names:
        attach = lambda module, record: module.seen.append(record["name"])  # noqa: E731
        structure = Structure(name, record=lambda _, name=name: {"name": name}, attach=attach, order=orders[name])
        carry(module, structure)
        carry(module, structure)  # a second callback of the method
    module.on_save_checkpoint(checkpoint)
    module.on_load_checkpoint(checkpoint)
    assert checkpoint["own"] == 1
    assert module.seen == ["layers", "shapes", "attachments", "own"]
