"""Terms, features, regressors and metrics."""

from __future__ import annotations

import copy
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_compress.distillation import DistillationModule, Item, LeastSquares, Term, losses
from lightning_compress.distillation.features import Recorder, match, tensor
from lightning_compress.distillation.regressors import Regressor
from lightning_compress.metrics import Agreement, Fidelity
from tests.support.students import Student, teacher, trainer

G = torch.Generator().manual_seed(0)


def test_recorder_keeps_outputs_by_call() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    recorder = Recorder(net, {"0": net[0]})
    with recorder.recording() as calls:
        net(torch.ones(1, 2))
        with torch.no_grad():
            net(torch.ones(9, 2))
        net(torch.zeros(4, 2))
    net(torch.ones(1, 2))
    assert [len(call.outputs["0"]) for call in calls] == [1, 4]
    assert calls[1].outputs["0"].requires_grad
    recorder.remove()
    assert not net._forward_hooks
    assert not net[0]._forward_hooks


def test_a_hooked_network_can_be_copied_and_pickled() -> None:
    net = nn.Sequential(nn.Linear(2, 3))
    Recorder(net, {"0": net[0]})
    for one in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert one(torch.ones(1, 2)).shape == (1, 3)


def test_tensor_of_an_output() -> None:
    x = torch.ones(1)
    assert all(tensor(output) is x for output in (x, (x, None), [x], {"logits": x, "loss": None}))
    for output in ({"loss": x}, (), "x"):
        with pytest.raises(TypeError, match="need a layer that puts out a tensor"):
            tensor(output)


def test_match_keeps_the_order_and_lists_what_there_is() -> None:
    assert match(["", "b", "a", "ab"], "?", "student") == ["b", "a"]
    assert match(["", "b"], "", "student") == [""]
    with pytest.raises(ValueError, match="layer of the teacher that matches 'c', got none; there are: b, a"):
        match(["", "b", "a"], "c", "teacher")


def test_regressor_is_ridge_regression() -> None:
    student, teacher = torch.randn(40, 3, generator=G), torch.randn(40, 5, generator=G)
    mapped, target = Regressor(LeastSquares(penalty=0.1))(student, teacher)
    rows = np.c_[student.numpy(), np.ones(40)].astype(np.float64)
    gram = rows.T @ rows / 40
    weight = np.linalg.solve(gram + 0.1 * gram.diagonal().mean() * np.eye(4), rows.T @ teacher.numpy() / 40)
    np.testing.assert_allclose(mapped.numpy(), rows @ weight, rtol=1e-4, atol=1e-5)
    assert target is teacher or torch.equal(target, teacher)


def test_regressor_remembers_past_batches() -> None:
    regressor = Regressor(LeastSquares(decay=0.75))
    batches = [torch.randn(8, 2, generator=G) for _ in range(2)]
    for batch in batches:
        regressor(batch, torch.zeros(8, 3))
    with_ones = [torch.cat((batch, torch.ones(8, 1)), 1) for batch in batches]
    first, second = (rows.T @ rows / 8 for rows in with_ones)
    torch.testing.assert_close(regressor.moments[:, :3], 0.75 * first + 0.25 * second)


@pytest.mark.parametrize(
    ("dim", "student", "teacher", "mapped"),
    [
        (1, (2, 3, 8, 8), (2, 6, 4, 4), (2, 6, 4, 4)),
        (1, (2, 3, 4), (2, 6, 8), (2, 6, 4)),
        (1, (2, 3), (2, 6), (2, 6)),
        (-1, (2, 7, 3), (2, 7, 6), (2, 7, 6)),
        (1, (2, 3, 4, 4), (2, 3, 4, 4), (2, 3, 4, 4)),
    ],
)
def test_regressor_shapes(dim: int, student: Any, teacher: Any, mapped: Any) -> None:
    x = torch.randn(student, generator=G).requires_grad_()
    ours, theirs = Regressor(LeastSquares(dim=dim))(x, torch.randn(teacher, generator=G))
    assert ours.shape == theirs.shape == mapped
    ours.sum().backward()
    assert x.grad.abs().sum() > 0


def test_regressor_refuses() -> None:
    with pytest.raises(ValueError, match="need 0 <= decay < 1"):
        LeastSquares(decay=1.0)
    with pytest.raises(ValueError, match="need penalty > 0"):
        LeastSquares(penalty=0.0)
    with pytest.raises(ValueError, match=r"one batch and as many dimensions.*\(2, 3\), teacher \(2, 3, 4\)"):
        Regressor(LeastSquares())(torch.ones(2, 3), torch.ones(2, 3, 4))


def test_term_names() -> None:
    assert Term().name == "soft_targets"
    assert Term(losses.SoftTargets(2.0)).name == "SoftTargets"
    assert Term(partial(losses.soft_targets, temperature=2.0), "fc").name == "soft_targets/fc"
    with pytest.raises(ValueError, match="need weight >= 0, got weight=-1"):
        Term(weight=-1)


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
        master.embed.weight[0] = 1e6  # what padding says would drown the rest
    terms = [
        Term(mask=Item("mask")),
        Term(losses.Decoupled(), mask=Item("mask"), labels=Item("tags")),
        Term(losses.mse, "net.embed", "embed", regressor=LeastSquares(dim=-1), mask=Item("mask")),
    ]
    module = DistillationModule(TokenStudent(), master, terms, network="net")
    one = trainer()
    one.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    parts = {name: value for name, value in one.callback_metrics.items() if name.startswith("distillation/")}
    assert set(parts) == {f"distillation/{name}" for name in ("task", "soft_targets", "Decoupled", "mse/net.embed")}
    assert all(value < 1000 for value in parts.values())


def test_a_mask_of_other_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mask of the leading dimensions.*got \(3,\) for \(2, 5\), \(2, 5\)"):
        Term(mask=lambda batch: torch.ones(3)).arguments(torch.ones(2, 5), torch.ones(2, 5), None)


class RegressionStudent(Student):
    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return nn.functional.mse_loss(self(x)[:, 0], y.float())


def test_regression_outputs_are_taught() -> None:
    from tests.support.students import loader

    one = trainer()
    one.fit(DistillationModule(RegressionStudent(), teacher(), [Term(losses.mse)]), loader(), loader())
    assert one.callback_metrics["distillation/mse"] > 0


def test_metrics_against_numpy() -> None:
    student, teacher = torch.randn(2, 30, 4, generator=G), torch.randn(2, 30, 4, generator=G)
    agreement, fidelity = Agreement(), Fidelity()
    for s, t in zip(student, teacher, strict=True):
        agreement.update(s, t)
        fidelity.update(s, t)
    s, t = student.view(60, 4).double().numpy(), teacher.view(60, 4).double().numpy()
    p_s, p_t = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (s, t))
    assert agreement.compute().item() == pytest.approx((s.argmax(1) == t.argmax(1)).mean())
    assert fidelity.compute().item() == pytest.approx((p_t * np.log(p_t / p_s)).sum(1).mean(), rel=1e-5)
    with pytest.raises(ValueError, match="of one shape with at least 2 classes"):
        agreement.update(torch.ones(2, 1), torch.ones(2, 1))
