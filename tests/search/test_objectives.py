"""Losses and metrics against Lightning's own validation, and what they refuse."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lightning_compress.search import Logged, Mean, OfOutputs, Scored, training_loss
from lightning_compress.training.copies import detached_copy
from tests.support.runs import trainer
from tests.support.toys import Digits, build, digits


class Metrics(Digits):
    """Logs a metric object, a collection, numbers of two batch sizes and one of the whole epoch."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.accuracy = MulticlassAccuracy(10, average="micro")
        self.several = MetricCollection({"f1": MulticlassF1Score(10), "macro": MulticlassAccuracy(10)})

    def on_validation_epoch_start(self):
        self.seen = 0

    def validation_step(self, batch, batch_idx):
        logits = self(batch[0])
        self.seen += len(logits)
        self.accuracy(logits, batch[1])
        self.several(logits, batch[1])
        self.log("acc", self.accuracy)
        self.log_dict(self.several)
        self.log("loss", F.cross_entropy(logits, batch[1]), batch_size=len(logits))

    def on_validation_epoch_end(self):
        self.log("seen", float(self.seen))


def batches():
    images, labels = digits()
    return list(zip(images[:250].split(100), labels[:250].split(100), strict=True))


@pytest.mark.parametrize("name", ["acc", "f1", "macro", "loss", "seen"])
def test_a_logged_metric_is_that_of_validation(name):
    module = build(kind=Metrics)
    loader = DataLoader(TensorDataset(*(torch.cat(part) for part in zip(*batches(), strict=True))), batch_size=100)
    (expected,) = trainer().validate(module, loader, verbose=False)
    copied = detached_copy(module).eval()
    copied.accuracy.update(torch.zeros(2, 10), torch.zeros(2, dtype=torch.long))  # of an interrupted epoch
    for _ in range(2):
        assert Logged(name)(copied, batches()) == pytest.approx(expected[name], abs=1e-6)


def test_scores_and_means_by_hand():
    module, parts = build().eval(), batches()
    images, labels = (torch.cat(one) for one in zip(*parts, strict=True))
    logits = module(images).detach()
    accuracy = float((logits.argmax(1) == labels).float().mean())
    assert Scored(MulticlassAccuracy(10, average="micro"))(module, parts) == pytest.approx(accuracy)
    loss = float(F.cross_entropy(logits, labels))
    assert Mean(OfOutputs(F.cross_entropy))(module, parts) == pytest.approx(loss, rel=1e-5)
    assert Mean()(detached_copy(module), parts) == pytest.approx(loss, rel=1e-5)


class NeedsTrainer(L.LightningModule):
    def training_step(self, batch, batch_idx):
        return self.trainer.current_epoch

    validation_step = training_step


class Manual(L.LightningModule):
    def training_step(self, batch, batch_idx):
        return None


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: training_loss(nn.Linear(1, 1), None), "need a LightningModule with a training_step, got Linear: pass"),
        (lambda: training_loss(NeedsTrainer(), None), "need a training_step without its Trainer, got RuntimeError"),
        (lambda: training_loss(Manual(), None), "need a training_step that returns a loss, got NoneType: pass loss="),
        (lambda: Logged("a")(nn.Linear(1, 1), []), "need a LightningModule with a validation_step, got Linear: pass"),
        (lambda: Logged("a")(NeedsTrainer(), batches()), "need validation without a Trainer, got RuntimeError"),
        (
            lambda: Logged("val_mse")(build().eval(), batches()),
            "need a metric that validation_step logs, got 'val_mse'; there are: val_loss, val_acc",
        ),
        (lambda: OfOutputs(F.mse_loss)(nn.Identity(), {"x": torch.ones(1)}), r"need batches \(inputs, targets\)"),
    ],
    ids=["no step", "trainer", "no loss", "no validation", "trainer in validation", "not logged", "no pair"],
)
def test_refusals(ask, said):
    with pytest.raises(ValueError, match=said):
        ask()
