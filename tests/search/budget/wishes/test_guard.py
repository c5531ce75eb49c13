"""CompressionBudget(max_drop=...): the search, the way back, and its life in a Trainer."""

import copy
import logging
import math
import re
import warnings
from itertools import pairwise

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging
from torch import nn

from lightning_compress import CompressionBudget, CompressionReport, DistillationCallback, PruningCallback, export
from lightning_compress.schedules import Linear
from tests.support.distributed import run_distributed
from tests.support.runs import Randomness, Save, resumes, same, state, trainer, uninterrupted
from tests.support.toys import Batches, Digits, build, held_out, teacher


@pytest.fixture(scope="module")
def trained():
    """State dict of a dense model of some epochs."""
    module = build()
    fit(module, epochs=8)
    return module.state_dict()


def fit(module, *callbacks, epochs=8, ckpt_path=None, **options):
    L.seed_everything(0, verbose=False)
    run = trainer(*callbacks, max_epochs=epochs, **({"num_sanity_val_steps": 2} | options))
    run.fit(module, Batches(), held_out(), ckpt_path=ckpt_path)
    return run


def budget(max_drop=0.05, **options):
    return CompressionBudget(max_drop=max_drop, **({"patience": 1} | options))


def loaded(weights, kind=Digits):
    module = build(kind=kind)
    module.load_state_dict(weights)
    return module


def flat(nested, name=""):
    """Tensors and numbers in nested dictionaries and lists, each as a tensor by its path."""
    if isinstance(nested, dict | list):
        items = nested.items() if isinstance(nested, dict) else enumerate(nested)
        return {path: one for key, value in items for path, one in flat(value, f"{name}/{key}").items()}
    return {} if nested is None else {name.removeprefix("/"): torch.as_tensor(nested)}


def accuracy(module):
    images, labels = held_out().dataset.tensors
    with torch.no_grad():
        right = (module.eval()(images).argmax(1) == labels).float().mean()
        module.train()
        return float(right)


def file_size(module, folder):
    return export(module, folder / "m.lcz").stat().st_size


def test_the_metric_holds_and_the_file_is_much_smaller(trained, tmp_path):
    before, module = accuracy(loaded(trained)), loaded(trained)
    dense = file_size(module, tmp_path)
    fit(module, budget())
    assert accuracy(module) >= before - 0.05
    assert file_size(module, tmp_path) < dense / 3


def test_the_reference_is_the_metric_of_all_batches_of_the_model_that_came_in(trained, caplog):
    caplog.set_level(logging.INFO)
    module = loaded(trained)
    before = accuracy(module)
    run = fit(module, budget(), epochs=2)
    assert f"val_acc of the dense model is {before:.4g}, and {before - 0.05:.4g} is good" in caplog.text
    assert run.num_sanity_val_steps == 2


class Metric(Digits):
    """Logs a metric of its own, by the number of validations in training that have begun."""

    incoming = 1.0
    values = ()
    seen = -1  # the sanity check

    def on_validation_epoch_end(self):
        self.log("good", self.incoming if self.seen < 0 else self.values[min(self.seen, len(self.values) - 1)])
        type(self).seen += 1


def metrics(*values, **options):
    return type("Some", (Metric,), {"values": values, **options})


class Sizes(L.Callback):
    """Number of distinct values and of zeros at the end of each epoch, when the guard has judged."""

    def __init__(self):
        self.weights = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.weights.append(pl_module.net[9].weight.detach().clone())


def test_a_failed_size_goes_back_to_the_last_good_model(trained):
    sizes, module = Sizes(), loaded(trained, metrics(1.0, 0.0, 1.0))
    fit(module, sizes, budget(0.1, monitor="good"), epochs=3)
    assert torch.equal(sizes.weights[0], sizes.weights[1])  # the first size was good, the second was not
    assert not torch.equal(sizes.weights[1], sizes.weights[2])


def test_a_size_may_fail_once_if_patience_is_two(trained):
    sizes, module = Sizes(), loaded(trained, metrics(1.0, 0.0, 1.0, 0.0, 0.0, 1.0))
    fit(module, sizes, budget(0.1, monitor="good", patience=2, schedule=Linear(0.0, 1.0)), epochs=6)
    same_as_before = [torch.equal(*pair) for pair in pairwise(sizes.weights)]
    # The second size failed and then held. The third failed twice, and the model of the second came back.
    assert torch.equal(sizes.weights[4], sizes.weights[2])
    assert not any(same_as_before)


def test_weights_optimizers_and_masks_go_back_bit_for_bit(trained):
    module = loaded(trained, metrics(1.0, 0.0))
    module.optimizer, module.options = torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}
    found = []

    class Look(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            (optimizer,) = trainer.optimizers
            momenta = {i: held["momentum_buffer"].clone() for i, held in optimizer.state_dict()["state"].items()}
            found.append((state(pl_module), momenta, optimizer.param_groups[0]["lr"]))

    callback = budget(0.1, monitor="good")
    fit(module, callback, Look(), epochs=2)
    (first, momenta, rate), (second, again, later) = found
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(momenta[i], again[i]) for i in momenta)
    assert later < rate  # the learning rate follows its scheduler


def test_the_model_to_go_back_to_stays_as_it_is_while_training_goes_on(trained):
    kept, callback = [], budget(0.1, monitor="good")

    class Look(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            kept.append((callback._wish.good["step"], flat(copy.deepcopy(callback._wish.good))))

    fit(loaded(trained, metrics(1.0, 1.0, 0.0)), callback, Look(), epochs=5)
    first, *later = (good for step, good in kept if step == 24)
    assert len(later) == 3  # after the first of these the run goes back to it in every epoch
    assert first.keys() >= {"model/optimizers/0/0/step", "model/optimizers/0/0/exp_avg", "tensors/fisher/net.0.weight"}
    for good in later:
        assert [name for name, value in good.items() if not torch.equal(value, first[name])] == []


@pytest.mark.parametrize("bad", [0.0, math.nan])
def test_nothing_holds_so_the_dense_model_stays_and_the_run_says_so(bad, trained):
    module, dense = loaded(trained, metrics(bad)), loaded(trained)
    with pytest.warns(UserWarning, match="missed max_drop=0.1: no smaller file held good at 0.9"):
        fit(module, budget(0.1, monitor="good"), epochs=3)
    assert same(module.net, dense.net)


def test_weights_that_are_not_a_number_go_back(trained, tmp_path):
    """A step of a huge learning rate destroys the model after its first good validation."""

    class Explode(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.current_epoch == 1:
                with torch.no_grad():
                    pl_module.net[11].bias.fill_(math.nan)

    class Whole(Digits):
        def validation_step(self, batch, batch_idx):
            logits = self(batch[0])
            self.log("finite", logits.isfinite().all().float())

    module = loaded(trained, Whole)
    fit(module, budget(0.1, monitor="finite"), Explode(), epochs=4)
    assert all(parameter.isfinite().all() for parameter in module.parameters())
    assert file_size(module, tmp_path) < 8000


def test_a_model_that_is_ruined_before_a_size_is_tried_goes_back(trained):
    """The weights are no numbers from the third step on."""

    class Ruin(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == 3:
                with torch.no_grad():
                    pl_module.net[11].weight.fill_(math.nan)

    module, dense = loaded(trained), loaded(trained)
    with pytest.warns(
        UserWarning, match="missed max_drop=0.05: no validation judged a size, so the model is the dense"
    ):
        fit(module, Ruin(), budget(), epochs=1)
    assert same(module.net, dense.net)


def test_steps_after_the_last_validation_are_taken_back(trained):
    """No validation has seen the model that they lead to."""
    before, module = accuracy(loaded(trained)), loaded(trained)

    class Ruin(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == 95:
                with torch.no_grad():
                    pl_module.net[11].weight.mul_(-1)

    fit(module, Ruin(), budget(), val_check_interval=7)
    assert accuracy(module) >= before - 0.05


@pytest.mark.parametrize(
    "averaging", [EMAWeightAveraging(decay=0.9), StochasticWeightAveraging(1e-3)], ids=["EMA", "SWA"]
)
def test_averages_beside_it_are_refused(averaging, trained):
    with pytest.raises(
        ValueError, match="need a model that is validated as it is kept, got .*Averaging beside max_drop"
    ):
        fit(loaded(trained), averaging, budget())


def test_a_dense_phase_keeps_the_best_model_to_go_back_to(trained):
    """Where the reference is given, the model may begin with any metric, and the first size may fail."""
    module = loaded(trained, metrics(0.2, 0.6, 0.4, 0.0, incoming=0.1))
    sizes = Sizes()
    with pytest.warns(UserWarning, match="missed max_drop=0.05"):
        fit(module, sizes, budget(monitor="good", reference=0.9, schedule=Linear(0.5, 1.0)), epochs=6)
    assert torch.equal(sizes.weights[-1], sizes.weights[1])


def test_a_metric_that_shall_be_small(trained, tmp_path):
    module = loaded(trained)
    images, labels = held_out().dataset.tensors

    def loss():
        with torch.no_grad():
            value = nn.functional.cross_entropy(module.eval()(images), labels)
            module.train()
            return float(value)

    before = loss()
    fit(module, budget(0.2, monitor="val_loss", mode="min"))
    assert loss() <= before + 0.2
    assert file_size(module, tmp_path) < 6000


def test_a_loss_is_good_when_it_is_small(trained, caplog):
    caplog.set_level(logging.INFO)
    fit(loaded(trained), budget(0.2, monitor="val_loss"), epochs=2)
    (said,) = re.findall(r"val_loss of the dense model is ([\d.]+), and ([\d.]+) is good", caplog.text)
    assert float(said[1]) == pytest.approx(float(said[0]) + 0.2, abs=2e-3)


def test_a_drop_in_points_for_a_metric_in_fractions_is_refused(trained):
    with pytest.raises(
        ValueError, match="need max_drop below val_acc of the dense model, got max_drop=1 where it is 0"
    ):
        fit(loaded(trained), budget(1), epochs=2)


def test_from_random_weights_it_needs_a_reference(tmp_path):
    with pytest.raises(ValueError, match="need a trained model to compare with, got one whose batch normalizations"):
        fit(build(), budget())
    module = build()
    fit(module, budget(0.05, reference=0.7, schedule=Linear(0.4, 0.8)), epochs=16)
    assert accuracy(module) >= 0.65
    assert file_size(module, tmp_path) < 8000


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_a_run_without_validation_is_refused(trained):
    L.seed_everything(0, verbose=False)
    with pytest.raises(ValueError, match="need a validation of each size that max_drop= tries, got none"):
        trainer(budget(), max_epochs=2, limit_val_batches=0).fit(loaded(trained), Batches())


class Collapse(L.Callback):
    """The optimizer's steps destroy the model, from an epoch on."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch >= self.epoch:
            (optimizer,) = trainer.optimizers
            optimizer.param_groups[0]["lr"] = 10.0


@pytest.mark.parametrize("epoch", [6, 1], ids=["after a size held", "before"])
def test_metrics_report_and_checkpoints_are_those_of_the_model_that_fit_leaves(epoch, trained, tmp_path):
    """The last validations fail, so fit goes back."""
    module, report = loaded(trained), CompressionReport(tmp_path / "report", example_input=torch.zeros(1, 1, 8, 8))
    best = ModelCheckpoint(tmp_path, monitor="val_acc", mode="max", save_last=True)
    guard = budget(schedule=Linear(0.0, 0.5))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "CompressionBudget missed max_drop")
        run = fit(module, Collapse(epoch), guard, best, report, epochs=8)
    left = accuracy(module)
    assert left >= accuracy(loaded(trained)) - 0.05
    assert float(run.callback_metrics["val_acc"]) == pytest.approx(left)
    assert report.result.metrics_after["val_acc"] == pytest.approx(left)
    assert report.result.unvalidated == 0
    for path in (best.last_model_path, best.best_model_path):
        assert same(loaded(torch.load(path, weights_only=True)["state_dict"]).net, module.net)
    assert float(best.best_model_score) == pytest.approx(left)


def test_the_best_model_of_the_size_stays(trained):
    """Once the search is over, training goes on, and the metric falls within the bound."""
    sizes, module = Sizes(), loaded(trained, metrics(1.0, 0.99, 0.95))
    fit(module, sizes, budget(0.1, monitor="good", schedule=Linear(0.0, 0.1)), epochs=3)
    assert torch.equal(sizes.weights[-1], sizes.weights[0])


def test_nothing_holds_on_the_way_to_a_reference_so_the_best_model_stays():
    """A model with random weights is no model to go back to."""
    module = build()
    with pytest.warns(UserWarning, match="no smaller file held val_acc at 0.99, so the model is the best that was"):
        run = fit(module, budget(0.0, reference=0.99), epochs=6)
    assert accuracy(module) > 0.3
    assert float(run.callback_metrics["val_acc"]) == pytest.approx(accuracy(module))


@resumes
def test_a_run_that_is_resumed_at_its_end_keeps_its_model(trained, tmp_path):
    last, module, resumed = ModelCheckpoint(tmp_path, "last"), loaded(trained), loaded(trained)
    fit(module, last, budget(), epochs=4)
    fit(resumed, budget(), epochs=4, ckpt_path=tmp_path / "last.ckpt")
    assert same(module, resumed)


@resumes
def test_a_run_that_is_resumed_after_its_last_step_leaves_a_model_that_was_validated(trained, tmp_path):
    module, resumed, options = loaded(trained), loaded(trained), {"epochs": -1, "max_steps": 18}
    fit(module, budget(0.5), Save(tmp_path, [18]), **options)  # an epoch takes 12 steps
    fit(resumed, budget(0.5), ckpt_path=tmp_path / "step=18.ckpt", **options)
    assert same(module, resumed)


def test_a_metric_that_is_never_logged(trained):
    with pytest.raises(ValueError, match="need monitor as a metric .* got monitor='val_f1' where it logs .*val_acc"):
        fit(loaded(trained), budget(monitor="val_f1"))


def test_another_weight_method_is_refused(trained):
    with pytest.raises(ValueError, match="as the only weight method, got PruningCallback too"):
        fit(loaded(trained), budget(), PruningCallback(0.5))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({}, ValueError, "need a wish, bytes, macs, latency or max_drop, got none"),
        ({"bytes": 10, "max_drop": 0.1}, ValueError, "need one wish"),
        ({"max_drop": -0.1}, ValueError, "need max_drop >= 0"),
        ({"max_drop": math.inf}, ValueError, "max_drop"),
        ({"max_drop": "1 %"}, TypeError, "max_drop"),
        ({"max_drop": 0.1, "mode": "best"}, ValueError, "need mode 'min', 'max' or None, got mode='best'"),
        ({"max_drop": 0.1, "monitor": None}, TypeError, "monitor"),
        ({"max_drop": 0.1, "patience": 0}, ValueError, "patience"),
        ({"max_drop": 0.1, "reference": math.inf}, ValueError, "need a finite metric of the dense model .*got inf"),
        ({"bytes": 10, "monitor": "val_f1"}, ValueError, "need max_drop= to compare a metric, got monitor='val_f1'"),
        ({"max_drop": 0.1, "reference": "dense.ckpt"}, TypeError, "reference"),
    ],
)
def test_wrong_arguments(options, error, match):
    with pytest.raises(error, match=match):
        CompressionBudget(**options)


def test_a_teacher_and_a_report_beside_it(trained, tmp_path):
    module, report = loaded(trained), CompressionReport(tmp_path, example_input=torch.zeros(1, 1, 8, 8))
    run = fit(module, DistillationCallback(teacher(), alpha=0.1), report, budget(0.1), epochs=5)
    assert run.num_sanity_val_steps == 2
    assert (tmp_path / "report.md").exists()


def test_the_best_checkpoint_has_the_metric_that_was_logged(trained, tmp_path):
    """While the search goes on no checkpoint is best: the model that was validated may not be the one that stays."""
    module = loaded(trained)
    best = ModelCheckpoint(tmp_path, monitor="val_acc", mode="max")
    fit(module, best, budget(), epochs=8)
    weights = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    assert accuracy(loaded(weights)) == pytest.approx(float(best.best_model_score))
    assert len(weights["net.9.weight"].unique()) < 300


@resumes
def test_resumed_is_bit_identical_around_good_and_failed_sizes(trained, tmp_path):
    kind = metrics(1.0, 0.0, 1.0, 0.0, 1.0)

    class Carried(kind):
        """Carries the number of validations through checkpoints."""

        def on_save_checkpoint(self, checkpoint):
            checkpoint["seen"] = type(self).seen

        def on_load_checkpoint(self, checkpoint):
            type(self).seen = checkpoint["seen"]

    def run(*callbacks, ckpt_path=None):
        Carried.seen = -1
        module = loaded(trained, Carried)
        fit(module, budget(0.1, monitor="good"), Randomness(), *callbacks, epochs=5, ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, (2, 9, 12, 16, 23, 24, 30, 36, 37, 44, 48, 51, 58, 60))  # an epoch takes 12 steps


def _guarded(weights):
    module = loaded(weights)
    L.seed_everything(0, verbose=False)
    run = trainer(budget(), max_epochs=5, num_sanity_val_steps=2, strategy="ddp", devices=2)
    run.fit(module, Batches(seed=run.global_rank + 1), held_out())
    return {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}


def test_every_process_chooses_the_same(trained):
    first, second = run_distributed(_guarded, trained)
    assert all((first[name] == second[name]).all() for name in first)
