import torch
from torch import nn

from lightning_compress.search.budget.choice.choices import Choice
from lightning_compress.targets import select


def test_a_weight_moves_to_another_value_once_the_optimizer_has_stepped():
    layer = nn.Linear(4, 1, bias=False)
    choice = Choice(layer, {target.name: target for target in select(layer)})
    choice.composition.share({"weight": 2})
    choice.composition.strengthen(0.0, 1.0)
    choice.composition.update({"weight": torch.tensor([[1.0, 1.2, 3.0, 3.2]])})
    latent = torch.tensor([[1.0, 2.9, 3.0, 3.1]])  # the second weight has come near to the others' value
    choice.composition.observe({"weight": latent}, {"weight": torch.ones(1, 4)})
    choice.composition.backward_({"weight": torch.ones(1, 4)}, {"weight": latent})
    choice.stepped()
    weight = latent.clone()
    choice.composition.project_({"weight": weight})
    torch.testing.assert_close(weight, torch.tensor([[1.0, 3.0, 3.0, 3.0]]))
