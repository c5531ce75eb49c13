import shutil

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from examples.digits import DigitsClassifier, DigitsData
from examples.loaders import TensorLoader
from lightning_compress import PruningCallback

LENGTH = 7  # three batches of 3, 3, 1


def loader(**kwargs):
    return TensorLoader(torch.arange(LENGTH), -torch.arange(LENGTH), batch_size=3, shuffle=True, **kwargs)


def numbers(batches):
    return torch.cat([batch[0] for batch in batches]).tolist()


def epochs(shown, count=3):
    orders = []
    for epoch in range(count):
        shown.sampler.set_epoch(epoch)
        orders.append(numbers(shown))
    return orders


def test_an_epoch_shows_every_example_once():
    batches = list(loader())
    assert len(batches) == len(loader()) == 3
    assert sorted(numbers(batches)) == list(range(LENGTH))
    assert all(torch.equal(examples, -negatives) for examples, negatives in batches)


def test_the_order_depends_on_seed_and_epoch_alone():
    assert epochs(loader()) == epochs(loader())
    assert len({tuple(order) for order in epochs(loader()) + epochs(loader(seed=1))}) == 6


def test_without_shuffle_the_order_stays():
    assert epochs(TensorLoader(torch.arange(LENGTH), batch_size=3)) == [list(range(LENGTH))] * 3


def test_an_epoch_that_is_left_early_is_not_continued():
    left = loader()
    next(iter(left))
    assert numbers(left) == numbers(loader())


@pytest.mark.parametrize("taken", range(4))
def test_a_loader_goes_on_where_its_state_was_taken(taken):
    interrupted, resumed = loader(), loader()
    iterator = iter(interrupted)
    for _ in range(taken):
        next(iterator)
    resumed.load_state_dict(interrupted.state_dict())
    whole = list(loader())
    assert numbers(resumed) == numbers(whole[taken:] or whole)
    assert numbers(resumed) == numbers(whole)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"need tensors of one length, got lengths \[2, 3\]"):
        TensorLoader(torch.zeros(2), torch.zeros(3), batch_size=1)
    with pytest.raises(ValueError, match="need batch_size >= 1, got batch_size=0"):
        TensorLoader(torch.zeros(2), batch_size=0)


def test_a_run_resumed_from_any_step_ends_bit_identical(tmp_path):
    """Four batches an epoch, three epochs; checkpoints in the middle of epochs and at their ends."""

    def run(checkpoint=None):
        shutil.rmtree(tmp_path / "now", ignore_errors=True)
        torch.manual_seed(0)
        module, data = DigitsClassifier(), DigitsData(batch_size=270)
        trainer = Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            callbacks=[
                PruningCallback(0.8, every_n_steps=2),
                ModelCheckpoint(tmp_path / "now", "{step}", every_n_train_steps=1, save_top_k=-1),
                ModelCheckpoint(tmp_path / "now", "end-{step}", every_n_epochs=1, save_top_k=-1),
            ],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, data, ckpt_path=checkpoint)
        assert trainer.global_step == 12
        return module.state_dict()

    whole = run()
    (tmp_path / "now").rename(tmp_path / "then")
    for checkpoint in (*(f"step={step}" for step in range(1, 12)), "end-step=4", "end-step=8"):
        resumed = run(tmp_path / "then" / f"{checkpoint}.ckpt")
        assert all(torch.equal(whole[name], resumed[name]) for name in whole), checkpoint
