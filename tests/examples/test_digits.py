import pytest
import torch
from lightning.pytorch import Trainer

from examples.digits import DigitsClassifier, DigitsData
from lightning_compress import PruningCallback


def test_the_split_is_fixed_and_complete():
    one, two = DigitsData(seed=0), DigitsData(seed=1)
    for data in (one, two):
        data.setup("fit")
    assert [len(labels) for _, labels in (one.train, one.val, one.test)] == [1078, 359, 360]
    assert torch.equal(one.test[0], two.test[0])
    assert one.train[0].shape[1:] == (1, 8, 8)
    assert one.train[0].min() == 0
    assert one.train[0].max() == 1
    assert all(torch.bincount(labels).min() > 30 for _, labels in (one.val, one.test))


def test_a_pruned_classifier_reads_digits():
    torch.manual_seed(0)
    module, data = DigitsClassifier(), DigitsData()
    trainer = Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        callbacks=[PruningCallback(0.9)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    (result,) = trainer.test(module, data, verbose=False)
    assert result["test_acc"] > 0.9
    weights = torch.cat([p.flatten() for p in module.parameters() if p.ndim > 1])
    assert (weights == 0).sum().item() == pytest.approx(0.9 * len(weights), abs=1)
