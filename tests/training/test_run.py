"""The wiring: optimizers, skipped steps, tied and frozen weights, sharded parameters."""

from itertools import pairwise

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import BaseFinetuning, ModelPruning, StochasticWeightAveraging
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_compress import PruningCallback, QATCallback, WeightSharingCallback
from lightning_compress.pruning import criteria
from lightning_compress.quantization.weights import grids_of
from lightning_compress.schedules import Constant, Linear
from lightning_compress.training import QUANTIZE
from lightning_compress.training.plans import check_callbacks
from tests.support.distributed import run_distributed
from tests.support.methods import Halves
from tests.support.runs import Save, trainer
from tests.support.shards import differing, fsdp2, gathered, sharded
from tests.support.toys import Batches, Digits, Manual, build, digits, fit, held_out


class Ranked(Halves):
    """A method with attributes of its own, named as its field names them."""

    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


class Spy(L.Callback):
    """Notes what the parameters hold in every forward pass and just before every step."""

    def __init__(self, name):
        self.name, self.forward, self.step = name, [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.forward.append(pl_module.get_parameter(self.name).detach().clone())

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.step.append(pl_module.get_parameter(self.name).detach().clone())


def on_halves(weight):
    return torch.equal(weight * 2, (weight * 2).round())


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 3}])
def test_forward_sees_projected_weights_and_the_optimizer_latents(options):
    spy = Spy("net.9.weight")
    fit(build(), Halves(), spy, **options)
    assert all(on_halves(weight) for weight in spy.forward)
    assert not any(on_halves(weight) for weight in spy.step)


def test_latents_follow_the_straight_through_estimator():
    """Against the loop written out with torch alone."""
    L.seed_everything(0, verbose=False)
    loader = DataLoader(TensorDataset(*(tensor[:32] for tensor in digits())), batch_size=32)
    (batch,) = loader
    ours, reference = nn.Linear(64, 10), nn.Linear(64, 10)
    reference.load_state_dict(ours.state_dict())

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = ours

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0].flatten(1)), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.05, weight_decay=0.01)

    trainer(Halves(), max_epochs=10).fit(Module(), loader)
    optimizer = torch.optim.Adam(reference.parameters(), 0.05, weight_decay=0.01)
    for _ in range(10):
        hard = (reference.weight * 2).round() / 2
        soft = reference.weight + (hard - reference.weight).detach()
        optimizer.zero_grad()
        F.cross_entropy(F.linear(batch[0].flatten(1), soft, reference.bias), batch[1]).backward()
        optimizer.step()
    torch.testing.assert_close(ours.weight, (reference.weight * 2).round() / 2)
    torch.testing.assert_close(ours.bias, reference.bias)


def test_a_rank_of_a_method_leaves_the_order_of_projection_alone():
    """Rounding comes last: zeros and multiples of 0.5 in the end."""
    callback, module = Ranked(rank=3), build()
    assert callback.order == QUANTIZE
    fit(module, callback, PruningCallback(0.5, schedule=Constant()), max_epochs=1)
    assert all(on_halves(p.detach()) for p in module.parameters() if p.ndim > 1)


def test_the_order_of_projection_is_fixed_at_construction():
    with pytest.raises(AttributeError, match="order"):
        Ranked(order=3)


@pytest.mark.parametrize("order", [None, "prune", 10.0])
def test_an_order_is_an_integer(order):
    callback = Ranked(_order=order)
    with pytest.raises(TypeError, match=f"need the order of projection of Ranked as an integer, got {order!r}: call "):
        fit(build(), callback)


def test_a_callback_class_is_refused():
    with pytest.raises(TypeError, match=r"got the class Spy in the Trainer's list: write Spy\(\.\.\.\)"):
        check_callbacks([Halves(), Spy])


class Late(L.Callback):
    """Adds a callback while ``fit`` runs, as code of a user's may."""

    def on_train_epoch_start(self, trainer, pl_module):
        trainer.callbacks.append(PruningCallback(0.5))


class Wrapped(L.Callback):
    """Calls a callback that is not in the list."""

    def setup(self, trainer, pl_module, stage):
        PruningCallback(0.5).setup(trainer, pl_module, stage)


@pytest.mark.parametrize("kind", [Late, Wrapped])
@pytest.mark.parametrize("others", [[], [QATCallback]], ids=["alone", "beside another"])
def test_a_callback_that_comes_too_late_is_refused(kind, others):
    module = build()
    before = module.net[9].weight.clone()
    with pytest.raises(
        ValueError, match=r"need PruningCallback in Trainer\(callbacks=\[...\]\) before fit begins, got it "
    ):
        fit(module, *(other() for other in others), kind())
    assert others or torch.equal(module.net[9].weight, before)


@pytest.mark.parametrize("method", [PruningCallback, QATCallback], ids=lambda method: method.__name__)
def test_the_pruning_of_lightning_beside_a_method_is_refused(method):
    theirs = ModelPruning("l1_unstructured", amount=0.5)
    with pytest.raises(ValueError, match=r"got Lightning's ModelPruning .*: write PruningCallback\(sparsity\) in its"):
        fit(build(), theirs, method())


@pytest.mark.parametrize("method", [PruningCallback, QATCallback], ids=lambda method: method.__name__)
def test_two_callbacks_with_the_same_patterns_are_refused_with_a_way_out(method):
    with pytest.raises(
        ValueError, match=r"both on 'net\.0\.weight'.*: make their include and exclude patterns disjoint"
    ):
        fit(build(), method(), method())


def test_nothing_happens_before_a_schedule_begins():
    dense, module = build(), build()
    fit(dense, max_epochs=1)
    fit(module, PruningCallback(schedule=Linear(0.99, 1.0)), max_epochs=1, max_steps=100)
    states = dense.state_dict(), module.state_dict()
    changed = [key for key in states[0] if not torch.equal(states[0][key], states[1][key])]
    assert changed == ["net.0.weight", "net.3.weight", "net.9.weight", "net.11.weight"]
    for key in changed:  # the last step alone pruned
        kept = states[1][key] != 0
        assert torch.equal(states[0][key][kept], states[1][key][kept])


def test_each_optimizer_exchanges_its_own_latents():
    seen = []

    class Look(Manual):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            seen.append(all(on_halves(p.detach()) for p in self.parameters() if p.ndim > 1))

    fit(build(kind=Look), Halves())
    assert len(seen) == 36
    assert all(seen)


def test_an_optimizer_that_steps_past_the_trainer_is_refused():
    class Raw(Manual):
        def optimizers(self, use_pl_optimizer=True):
            return super().optimizers(use_pl_optimizer=False)

    with pytest.raises(ValueError, match=r"step\(\) of the plain AdamW: in manual optimization call"):
        fit(build(kind=Raw), Halves())


def test_a_step_that_the_scaler_skips():
    class Overflow(Digits):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * float("inf") if batch_idx % 4 == 1 else loss

    spy, module = Spy("net.9.weight"), build(kind=Overflow)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    fit(module, Halves(), spy, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    assert scaler.get_scale() < 2.0
    assert all(on_halves(weight) for weight in spy.forward)
    assert torch.equal(spy.step[1], spy.step[2])  # the skipped step left the latents alone
    assert not torch.equal(spy.step[0], spy.step[1])


def test_tied_weights_are_projected_once():
    class Tied(Digits):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.tied = nn.Linear(64, 32)
            self.tied.weight = self.net[9].weight

    module = build(kind=Tied)
    fit(module, PruningCallback(0.9, schedule=Linear(0.0, 0.5), include=("tied",)))
    assert module.tied.weight is module.net[9].weight
    assert int((module.tied.weight == 0).sum()) == round(0.9 * 64 * 32)
    state = module.state_dict()
    assert torch.equal(state["tied.weight"], state["net.9.weight"])


def test_frozen_weights_are_left_alone_and_pruned_by_name():
    module = build()
    module.net[9].requires_grad_(False)
    before = module.net[9].weight.clone()
    callback = PruningCallback(0.9, schedule=Linear(0.0, 0.5))
    fit(module, callback)
    assert torch.equal(module.net[9].weight, before)
    assert callback.report()["weights"] == 3592 - 64 * 32
    module = build()
    module.net[9].weight.requires_grad_(False)
    before = module.net[9].weight.clone()
    fit(module, PruningCallback(0.9, schedule=Linear(0.0, 0.5), include=("net.9",)))
    after = module.net[9].weight
    assert int((after == 0).sum()) == round(0.9 * 64 * 32)
    assert torch.equal(after[after != 0], before[after != 0])


class Head(Digits):
    """What is frozen when training begins is given to no optimizer."""

    def configure_optimizers(self):
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], 3e-3)


class Unfreeze(BaseFinetuning):
    """The convolutions join the optimizer with the second epoch."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.net[:6], train_bn=False)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net[:6], optimizer, initial_denom_lr=1.0, train_bn=False)


class Rebuild(L.Callback):
    """A new optimizer takes over with the second epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            trainer.strategy.setup_optimizers(trainer)


@pytest.mark.parametrize(("kind", "change", "first"), [(Head, Unfreeze(), False), (Digits, Rebuild(), True)])
def test_what_joins_an_optimizer_late_is_compressed_too(kind, change, first):
    spy, seen = Spy("net.3.weight"), []

    class Look(L.Callback):
        def on_validation_start(self, trainer, pl_module):
            seen.append(all(on_halves(p.detach()) for p in pl_module.parameters() if p.ndim > 1))

    fit(build(kind=kind), Halves(), change, spy, Look())
    assert seen == [first, True, True]  # frozen weights are left alone
    assert all(on_halves(weight) for weight in spy.forward[12:])
    # The optimizer steps latents, not what is rounded: only the very first is both.
    assert not any(torch.equal(weight, spy.step[0]) or on_halves(weight) for weight in spy.step[13:])


def test_weights_built_late_are_found():
    class Late(Digits):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.head = None

        def configure_model(self):
            if self.head is None:
                self.head = nn.Linear(10, 10)

        def forward(self, images):
            return self.head(self.net(images))

    module = build(kind=Late)
    fit(module, PruningCallback(0.5, schedule=Linear(0.0, 0.5), include=("head",)))
    assert int((module.head.weight == 0).sum()) == 50


def test_a_checkpoint_of_other_targets_is_refused(tmp_path):
    fit(build(), PruningCallback(0.9, schedule=Linear(0.0, 0.1)), Save(tmp_path, [5]), max_epochs=1)
    with (
        pytest.warns(UserWarning, match="callbacks used to create the checkpoint need to be provided"),
        pytest.raises(ValueError, match=r"need latent weights of the targeted parameters, got 'net\.0\.weight'"),
    ):
        fit(build(), Halves(include=("net.9",)), ckpt_path=tmp_path / "step=5.ckpt")


def test_a_dense_checkpoint_can_be_compressed_from_where_it_is(tmp_path):
    run = fit(build(), max_epochs=1)
    run.save_checkpoint(tmp_path / "dense.ckpt")
    module = build()
    fit(module, PruningCallback(0.9, schedule=Linear(0.0, 0.6)), ckpt_path=tmp_path / "dense.ckpt")
    zeros = [(p == 0).sum() for p in module.parameters() if p.ndim > 1]
    assert abs(int(sum(zeros)) - 0.9 * 3592) <= 1


def test_a_checkpoint_of_another_method_goes_on_from_its_weights(tmp_path):
    """Latents that nothing projects any more would take back every step."""

    fit(build(), PruningCallback(0.9, schedule=Constant(), regrow=True), Save(tmp_path, [6]), max_epochs=1)
    spy, module = Spy("net.9.weight"), build()
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint need to be provided"):
        fit(module, Halves(Linear(0.9, 1.0)), spy, ckpt_path=tmp_path / "step=6.ckpt", max_epochs=2)
    pruned = torch.load(tmp_path / "step=6.ckpt", weights_only=True)["state_dict"]["net.9.weight"]
    assert torch.equal(spy.step[0], pruned)
    moved = [(one - other).abs().max() for one, other in pairwise(spy.step[:12])]
    assert min(moved) > 1e-4


Sharded = sharded(Digits, "net.0", "net.3", "net.9", "net.11", "net")


def _sharded(folder, criterion, scope):
    callback = PruningCallback(0.9, criterion=criterion, scope=scope, schedule=Linear(0.1, 0.6), every_n_steps=3)
    module = build(kind=Sharded)
    run = trainer(callback, Save(folder, [17]), **fsdp2())
    run.fit(module, Batches(), held_out())
    return gathered(module)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("criterion", [criteria.magnitude, criteria.taylor])
def test_sharded_parameters(tmp_path, criterion, scope):
    first, second = run_distributed(_sharded, str(tmp_path), criterion, scope)
    matrices = {name: value for name, value in first.items() if value.ndim > 1}
    assert not differing(first, second)
    groups = [matrices.values()] if scope == "global" else [[value] for value in matrices.values()]
    for group in groups:
        assert abs(sum((w == 0).sum() for w in group) - 0.9 * sum(w.size for w in group)) <= 1
    saved = torch.load(tmp_path / "step=17.ckpt", weights_only=True)
    assert saved["latent_weights"]["net.9.weight"].shape == (32, 64)


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
def test_what_swa_averages_is_what_ends_in_the_model():
    """Lightning writes the mean into the parameters, and then takes one more epoch to update BatchNorm's statistics."""
    module, means = build(), {}

    class Spy(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 4:
                means.update({name: p.detach().clone() for name, p in pl_module.named_parameters()})

    swa = StochasticWeightAveraging(1e-2, swa_epoch_start=1, annealing_epochs=1)
    fit(module, PruningCallback(0.5, schedule=Constant()), swa, Spy(), max_epochs=4)
    for name, p in module.named_parameters():
        if p.ndim > 1:
            kept = p != 0
            assert torch.equal(p[kept], means[name][kept])


class Clipped(Digits):
    """Clips its weights, as critics of Wasserstein GANs do, by a function that runs ``where``."""

    where = ""

    def clip(self, *_):
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.ndim > 1:
                    parameter.clamp_(-0.05, 0.05)

    def optimizer_step(self, *args, **options):
        super().optimizer_step(*args, **options)
        if self.where == "step":
            self.clip()

    def on_train_batch_end(self, *_):
        if self.where == "batch":
            self.clip()

    def configure_optimizers(self):
        configured = super().configure_optimizers()
        if self.where == "hook":
            configured["optimizer"].register_step_post_hook(self.clip)
        return configured


@pytest.mark.parametrize("where", ["step", "batch"])
def test_weights_that_are_clipped_where_it_is_undone(where):
    module = build(kind=Clipped)
    module.where = where
    with pytest.warns(UserWarning, match=r"writes into net\.0\.weight.* undoes\. To clip .*register_step_post_hook"):
        fit(module, WeightSharingCallback(8, schedule=Linear(0.1, 0.6), every_n_steps=3))


@pytest.mark.parametrize("method", [WeightSharingCallback(8, every_n_steps=3), QATCallback(), PruningCallback(0.5)])
def test_weights_that_are_clipped_where_the_optimizer_steps(method, recwarn):
    module = build(kind=Clipped)
    module.where = "hook"
    fit(module, method)
    assert all(p.abs().max() <= 0.05 + 1e-6 for p in module.parameters() if p.ndim > 1)
    assert not [warning for warning in recwarn if "writes into" in str(warning.message)]


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
def test_what_swa_averages_is_on_the_grid_when_statistics_are_taken_of_it():
    seen = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.current_epoch == 3:  # in which SWA updates the statistics of BatchNorm
                seen.extend(
                    torch.equal(grid.project(weight), weight)
                    for name, grid in grids_of(pl_module).items()
                    for weight in [pl_module.get_parameter(name).detach()]
                )

    averaging = StochasticWeightAveraging(1e-3, 0.4, annealing_epochs=1)
    fit(build(), averaging, QATCallback(8, activation_bits=None, every_n_steps=3), Look())
    assert seen
    assert all(seen)


class Words(Digits):
    """Looks pixels up in an embedding that rescales its rows in every pass."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.words = nn.Embedding(17, 16, max_norm=1.0)

    def forward(self, images):
        return super().forward(self.words((images * 16).long().squeeze(1)).mean(3).unsqueeze(1))


@pytest.mark.parametrize("method", [QATCallback(), WeightSharingCallback(8), Halves()])
def test_an_embedding_that_rescales_its_rows_is_refused(method):
    message = rf"got 'words\.weight' of an embedding with max_norm.* name it in exclude of {type(method).__name__}"
    with pytest.raises(ValueError, match=message):
        fit(build(kind=Words), method)


@pytest.mark.parametrize("regrow", [False, True])
def test_an_embedding_that_rescales_its_rows_is_pruned(regrow):
    module, seen = build(kind=Words), []

    class Look(L.Callback):
        def on_validation_batch_end(self, trainer, pl_module, *_):
            seen.append(int((pl_module.words.weight == 0).sum()))

    fit(module, PruningCallback(0.5, schedule=Linear(0.0, 0.2), scope="layer", regrow=regrow), Look())
    assert seen == [17 * 8] * 3
    assert module.words.weight.norm(dim=1).max() <= 1 + 1e-5


class Alone(Halves):
    alone = True


def test_a_method_that_needs_its_weights_alone():
    message = r"need Alone alone on a weight, got PruningCallback too on net\.9\.weight, net\.11\.weight: name them in"
    callbacks = [Alone(), PruningCallback(include=("net.9", "net.11"))]
    for given in (callbacks, callbacks[::-1]):
        with pytest.raises(ValueError, match=message):
            fit(build(), *given)
    fit(build(), Alone(exclude=("net.9", "net.11")), PruningCallback(include=("net.9", "net.11")), max_steps=2)


def test_one_callback_twice_in_the_list_is_refused():
    callback = PruningCallback(0.9)
    with pytest.raises(
        ValueError, match="need each callback once in the Trainer's list, got one PruningCallback twice"
    ):
        fit(build(), callback, callback)


def test_a_run_that_is_at_its_end_says_that_it_trained_nothing():
    run = fit(build(), callback := PruningCallback(0.9))
    with pytest.warns(UserWarning, match="PruningCallback: fit trained nothing, since the run was at its end"):
        run.fit(run.lightning_module, Batches(), held_out())
    assert callback.strength == 0.0
