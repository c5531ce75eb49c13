"""Terms: names, masks, labels; wrong ones are refused at construction."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_compress.distillation import DistillationModule, Item, LeastSquares, Term, losses
from tests.support.students import Student, loader, teacher, trainer

G = torch.Generator().manual_seed(0)


def of_labels(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    return (student - teacher)[labels].mean()


def test_names() -> None:
    assert Term(losses.SoftTargets(2.0)).name == "soft_targets"
    assert Term(nn.MSELoss()).name == "mse_loss"
    assert Term(partial(losses.mse), student_layers="fc").name == "mse/fc"


def test_repr_is_the_call() -> None:
    term = Term(losses.mse, student_layers="a", teacher_layers="b", regressor=LeastSquares(dim=-1), labels=None)
    regressor = "LeastSquares(decay=0.9, penalty=0.001, dim=-1)"
    assert repr(term) == f"Term(loss=mse, student_layers='a', teacher_layers='b', regressor={regressor})"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weight": -1}, ValueError, "need weight >= 0, got weight=-1"),
        ({"weight": "1"}, TypeError, "need weight as a number, got '1'"),
        ({"mask": "mask"}, TypeError, "need mask as a function or an object, got 'mask'"),
        ({"labels": 1}, TypeError, "need labels as a function or an object, got 1"),
        ({"regressor": LeastSquares}, TypeError, "need regressor as an object, got the class LeastSquares"),
        ({"loss": None}, TypeError, "need loss as a function (student, teacher) -> scalar, got None"),
        ({"loss": of_labels}, TypeError, "need a loss that takes (student, teacher), got <function of_labels"),
        ({"loss": of_labels}, TypeError, "give labels= in its Term, such as labels=Item(1)"),
        ({"labels": Item(1)}, TypeError, "need a loss that takes (student, teacher, labels), got <function mse"),
        ({"labels": Item(1)}, TypeError, "leave labels= out"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        Term(**{"loss": losses.mse, **arguments})


class TokenStudent(LightningModule):
    """Sequences with padding, network called by keyword, output a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Tagger()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        logits = self.net(ids=batch["ids"])["logits"]
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch["tags"].flatten(), ignore_index=-100)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


class Tagger(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, width)
        self.head = nn.Linear(width, 4)

    def forward(self, ids: Tensor) -> dict[str, Any]:
        return {"logits": self.head(self.embed(ids)), "states": None}


def test_padding_is_masked_and_tokens_are_taught() -> None:
    ids = torch.randint(1, 10, (6, 5), generator=G)
    tags = torch.randint(0, 4, (6, 5), generator=G)
    ids[:, 3:], tags[:, 3:] = 0, -100
    batches = [{"ids": ids, "tags": tags, "mask": ids > 0}]
    master = Tagger(width=12)
    with torch.no_grad():
        master.embed.weight[0] = 1e6  # unmasked padding would dominate the loss
    terms = [
        Term(losses.SoftTargets(), mask=Item("mask")),
        Term(losses.Decoupled(), mask=Item("mask"), labels=Item("tags")),
        Term(
            losses.mse,
            student_layers="net.embed",
            teacher_layers="embed",
            regressor=LeastSquares(dim=-1),
            mask=Item("mask"),
        ),
    ]
    module = DistillationModule(TokenStudent(), master, losses=terms, network="net")
    one = trainer()
    one.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    parts = {name: value for name, value in one.callback_metrics.items() if name.startswith("distillation/")}
    assert set(parts) == {f"distillation/{name}" for name in ("task", "soft_targets", "decoupled", "mse/net.embed")}
    assert all(value < 1000 for value in parts.values())


def test_a_mask_of_other_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask of the leading dimensions.*got \(3,\) for \(2, 5\), \(2, 5\)"):
        Term(losses.mse, mask=lambda batch: torch.ones(3)).loss_arguments(torch.ones(2, 5), torch.ones(2, 5), None)


class RegressionStudent(Student):
    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return nn.functional.mse_loss(self(x)[:, 0], y.float())


def test_regression_outputs_are_taught() -> None:
    one = trainer()
    one.fit(DistillationModule(RegressionStudent(), teacher(), losses=[losses.mse]), loader(), loader())
    assert one.callback_metrics["distillation/mse"] > 0
