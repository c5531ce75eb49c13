"""The validation after the last callback: when it comes, and which weights it compares."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from torch import nn

from lightning_compress import PruningCallback
from lightning_compress.schedules import Linear
from lightning_compress.training.endings.validations import marks
from tests.support.distributed import run_distributed
from tests.support.runs import same, trainer
from tests.support.toys import Batches, Digits, build, fit, held_out


class Counted(Digits):
    validations = 0

    def on_validation_end(self):
        self.validations += 1


class Swap(L.Callback):
    """Puts other weights into the model when training ends, as StochasticWeightAveraging does."""

    def on_train_end(self, trainer, pl_module):
        with torch.no_grad():
            pl_module.net[11].bias.add_(torch.linspace(-3, 3, 10))


def accuracy(module):
    return trainer().validate(module, held_out(), verbose=False)[0]["val_acc"]


def pruning():
    return PruningCallback(0.5, schedule=Linear(0.0, 0.5))


@pytest.mark.parametrize("swapping", [[], [Swap()]], ids=["as validated", "swapped"])
def test_only_a_model_that_changed_is_validated_again(swapping):
    module = build(kind=Counted)
    run = fit(module, pruning(), *swapping, max_epochs=3)
    assert module.validations == 3 + len(swapping)
    assert float(run.callback_metrics["val_acc"]) == pytest.approx(accuracy(module))


def test_steps_after_the_last_validation_call_for_no_other():
    module = build(kind=Counted)
    fit(module, pruning(), Swap(), max_epochs=3, check_val_every_n_epoch=2)
    assert module.validations == 1


def test_checkpoints_and_names_are_those_of_the_last_epoch(tmp_path):
    module = build()
    best = ModelCheckpoint(tmp_path, monitor="val_loss", mode="max", save_last=True)  # the swap makes it the worst
    fit(module, pruning(), Swap(), best, max_epochs=3)
    left = trainer().validate(module, held_out(), verbose=False)[0]["val_loss"]
    assert float(best.best_model_score) == pytest.approx(left)
    assert best.best_model_path.startswith(str(tmp_path / "epoch=2-step=36"))
    for path in (best.best_model_path, best.last_model_path):
        loaded = build()
        loaded.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
        assert same(loaded, module)


def test_a_progress_bar_is_not_opened_again(capsys):
    fit(build(kind=Counted), pruning(), Swap(), TQDMProgressBar(), max_epochs=1, enable_progress_bar=True)
    assert capsys.readouterr().out.count("Validation DataLoader 0: 100%") <= 1


def test_a_trainer_that_failed_validates_no_more():
    class Fail(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            raise RuntimeError("stop")

    run = trainer(pruning(), Fail(), max_epochs=1)
    with pytest.raises(RuntimeError, match="stop"):
        run.fit(build(), Batches(), held_out())
    assert "on_train_end" not in vars(run.strategy)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.half, torch.float32, torch.float64, torch.complex64])
def test_every_bit_counts(dtype):
    layer = nn.Module()
    layer.register_buffer("seen", torch.tensor([0, 1, 0, 1, 1]).to(dtype).reshape(5, 1).expand(5, 3).contiguous())
    before = marks(layer)
    assert before == marks(layer)
    layer.seen[1:3] = layer.seen[1:3].flip(0)  # the same values, at other places
    assert before != marks(layer)
    layer.seen = torch.zeros(0, dtype=dtype)
    assert before != marks(layer)


def _swapped():
    L.seed_everything(0, verbose=False)
    module = build(kind=Counted)
    run = trainer(pruning(), Swap(), max_epochs=1, strategy="ddp", devices=2)
    run.fit(module, Batches(seed=run.global_rank + 1), held_out())
    return module.validations


def test_every_process_validates():
    assert run_distributed(_swapped) == [2, 2]
