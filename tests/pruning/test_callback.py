import logging
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_compress import NM, Block, PruningCallback, channels
from lightning_compress.pruning import criteria
from lightning_compress.schedules import Constant, Cubic, Linear
from tests.support.distributed import run_distributed
from tests.support.runs import Randomness, Save, resumes, trainer
from tests.support.shards import fsdp2, sharded
from tests.support.toys import Batches, Digits, build, digits, fit, held_out

SOON = Linear(0.0, 0.5)


def weights(module):
    return {name: p.detach() for name, p in module.named_parameters() if p.ndim > 1}


def zeros(module, *names):
    chosen = [w for name, w in weights(module).items() if not names or name in names]
    return sum(int((w == 0).sum()) for w in chosen), sum(w.numel() for w in chosen)


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.943])
@pytest.mark.parametrize(
    "criterion",
    [criteria.magnitude, criteria.taylor, criteria.movement, partial(criteria.random, seed=1), criteria.wanda],
)
def test_global_sparsity_is_exact(criterion, sparsity):
    module = build()
    fit(module, PruningCallback(sparsity, criterion=criterion, schedule=SOON))
    pruned, total = zeros(module)
    assert abs(pruned - sparsity * total) <= 1


@pytest.mark.parametrize("criterion", [criteria.magnitude, criteria.taylor])
def test_layer_sparsity_is_exact_in_each_layer(criterion):
    module = build()
    fit(module, PruningCallback(0.75, criterion=criterion, scope="layer", schedule=SOON))
    for weight in weights(module).values():
        assert abs(int((weight == 0).sum()) - 0.75 * weight.numel()) <= 1


def test_n_of_every_m():
    module = build()
    fit(module, PruningCallback(pattern=NM(2, 4), schedule=SOON, exclude=("net.0",)))
    for name in ("net.3.weight", "net.9.weight", "net.11.weight"):
        groups = weights(module)[name].movedim(1, -1).reshape(-1, 4)
        assert ((groups != 0).sum(1) == 2).all()
    assert zeros(module, "net.0.weight")[0] == 0


def test_tiles():
    module = build()
    fit(module, PruningCallback(0.8, pattern=Block(2, 4), schedule=SOON, exclude=("net.0",)))
    tiles = alive = 0
    for name in ("net.3.weight", "net.9.weight", "net.11.weight"):
        matrix = weights(module)[name].flatten(1)
        kept = (matrix != 0).reshape(matrix.shape[0] // 2, 2, -1, 4).sum((1, 3))
        assert kept.unique().tolist() == [0, 8]
        tiles, alive = tiles + kept.numel(), alive + int((kept > 0).sum())
    assert abs(alive - 0.2 * tiles) <= 1


def test_only_what_is_included():
    module = build()
    fit(module, PruningCallback(0.9, include=("net.9", "net.11"), schedule=SOON))
    assert zeros(module, "net.0.weight", "net.3.weight")[0] == 0
    assert abs(zeros(module, "net.9.weight", "net.11.weight")[0] - 0.9 * (64 * 32 + 320)) <= 1


def test_zeros_are_positive_zeros():
    module = build()
    fit(module, PruningCallback(0.9, schedule=SOON))
    assert not any((weight == 0)[torch.signbit(weight)].any() for weight in weights(module).values())


def test_a_mask_is_the_magnitude_order_of_the_latents():
    """One-shot from the start: the mask must be that of the initial weights, by an argsort of all of them."""
    module = build(lr=0.0)
    before = torch.cat([w.flatten() for w in weights(module).values()])
    fit(module, PruningCallback(0.9, schedule=Constant()), max_epochs=1)
    after = torch.cat([w.flatten() for w in weights(module).values()])
    kept = before.abs().argsort(descending=True)[: round(0.1 * len(before))]
    expected = torch.zeros_like(before)
    expected[kept] = before[kept]
    assert torch.equal(after, expected)


@pytest.mark.parametrize("regrow", [False, True])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, partial(torch.optim.SGD, momentum=0.9, weight_decay=0.1)])
def test_classic_pruning_holds_pruned_weights_still_and_regrow_lets_them_learn(optimizer, regrow, tmp_path):
    pruning = PruningCallback(0.9, schedule=Cubic(0.2, 0.8), regrow=regrow, every_n_steps=100)
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    fit(build(optimizer, lr=0.1), pruning, saving, max_steps=24)
    first, second = (torch.load(tmp_path / f"step={step}.ckpt", weights_only=True) for step in (20, 24))
    for name, latent in first["latent_weights"].items():
        pruned = second["state_dict"][name] == 0
        assert (latent[pruned] != 0).all()
        assert torch.equal(second["latent_weights"][name][pruned], latent[pruned]) != regrow
        assert not torch.equal(second["latent_weights"][name], latent)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"sparsity": 1.5}, "need 0 < sparsity < 1, got sparsity=1.5"),
        ({"sparsity": 0}, "need 0 < sparsity < 1, got sparsity=0"),
        ({"sparsity": 0.9, "pattern": NM(2, 4)}, r"need sparsity=0.5 for pattern=NM\(n=2, m=4\), got sparsity=0.9"),
        ({"scope": "Global"}, "need scope 'global' or 'layer', got scope='Global'"),
        ({"gradient_scale": 0}, "need gradient_scale > 0, got gradient_scale=0"),
        ({"decay": 1.0}, "need 0 <= decay < 1, got decay=1.0"),
        ({"every_n_steps": 0}, "need every_n_steps >= 1, got every_n_steps=0"),
        ({"schedule": lambda t: t / 2}, r"need a schedule with strengths in \[0, 1\] that ends at 1"),
        ({"schedule": lambda t: 2 * t}, r"need a schedule with strengths in \[0, 1\] that ends at 1"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        PruningCallback(**arguments)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"sparsity": "0.9"}, "need sparsity as a number, got '0.9'"),
        ({"decay": "0.9"}, "need decay as a number, got '0.9'"),
        ({"gradient_scale": "auto"}, "need gradient_scale as a number, got 'auto'"),
        ({"regrow": "yes"}, "need regrow as True or False, got 'yes'"),
        ({"pattern": NM}, r"need pattern as an object, got the class NM: write NM\(...\)"),
        ({"pattern": "2:4"}, "need pattern as a function or an object, got '2:4'"),
        (
            {"pattern": criteria.magnitude},
            "need pattern as a Pattern .*, got <function magnitude .*: inherit from Pattern",
        ),
        ({"criterion": "magnitude"}, "need criterion as a function or an object, got 'magnitude'"),
        (
            {"criterion": channels.criteria.taylor},
            r"need criterion\(weight, evidence\), .* got channels.criteria.taylor\(members\): "
            "use pruning.criteria.taylor",
        ),
        (
            {"criterion": channels.criteria.batchnorm_scale},
            r"need criterion\(weight, evidence\), .* got channels.criteria.batchnorm_scale\(members\)",
        ),
        ({"every_n_steps": 2.5}, "need every_n_steps as an integer, got 2.5"),
    ],
)
def test_arguments_of_another_kind(arguments, match):
    with pytest.raises(TypeError, match=match):
        PruningCallback(**arguments)


@pytest.mark.parametrize("argument", ["include", "exclude"])
def test_patterns_are_sequences(argument):
    with pytest.raises(TypeError, match=rf"need {argument} as a sequence of patterns, got 'net'"):
        PruningCallback(**{argument: "net"})


@pytest.mark.parametrize(
    ("callbacks", "match"),
    [
        (
            [PruningCallback(include=("encoder.*",))],
            r"got 'encoder\.\*'; there are: net\.\*\.weight \(\d\), net",
        ),
        (
            [PruningCallback(pattern=NM(2, 4), include=("*", "net.0"))],
            r"need a number of inputs that 4 divides .* 'net\.0\.weight' of shape",
        ),
        (
            [PruningCallback(pattern=NM(2, 7))],  # no weight fits
            r"need a number of inputs that 7 divides .* 'net\.0\.weight' of shape",
        ),
        (
            [PruningCallback(pattern=Block(5, 5), include=("net.*",))],
            r"blocks of 5 x 5 fill .* 'net\.0\.weight' as 8 x 9",
        ),
        (
            [PruningCallback(0.5), PruningCallback(0.9, include=("net.9",))],
            r"got PruningCallback and PruningCallback both on 'net\.9\.weight', which have the same: make their",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_training(callbacks, match):
    with pytest.raises(ValueError, match=match):
        fit(build(), *callbacks)


@pytest.mark.parametrize(
    ("pattern", "left_alone"),
    [(NM(2, 4), ["net.0.weight"]), (Block(4, 4), ["net.0.weight", "net.11.weight"])],
    ids=str,
)
def test_a_weight_that_the_pattern_does_not_fit_is_left_alone_and_said_so(pattern, left_alone):
    """The first layer of a network for images has one or three inputs."""
    module = build()
    callback = PruningCallback(0.5, pattern=pattern, scope="layer")
    skipped = callback.select(module).skipped
    assert [name for name, reason in skipped.items() if reason == f"its shape does not fit {pattern}"] == left_alone
    fit(module, callback)
    for name, parameter in module.named_parameters():
        zeros = int((parameter == 0).sum())
        assert zeros == (parameter.numel() // 2 if parameter.ndim > 1 and name not in left_alone else 0), name


class Straight(Digits):
    """Nothing but one weight."""

    def __init__(self, lr):
        super().__init__(torch.optim.SGD, lr=lr)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
        nn.init.normal_(self.net[1].weight, std=0.1, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("regrow", [False, True])
def test_scaled_gradients_are_a_larger_learning_rate(regrow):
    pruned = [Straight(0.02), Straight(0.01)]
    for module, scale in zip(pruned, (1.0, 2.0), strict=True):
        fit(module, PruningCallback(0.9, schedule=Constant(), regrow=regrow, gradient_scale=scale))
    torch.testing.assert_close(pruned[1].net[1].weight, pruned[0].net[1].weight)


@pytest.mark.parametrize("regrow", [False, True])
def test_by_default_the_learning_rate_grows_as_the_fourth_root_of_the_density_falls(regrow):
    """A tenth of the weights remain: 10 ** 0.25 is 1.778."""
    pruned = [Straight(0.01778279), Straight(0.01)]
    for module, scale in zip(pruned, ({"gradient_scale": 1.0}, {}), strict=True):
        fit(module, PruningCallback(0.9, schedule=Constant(), regrow=regrow, **scale))
    torch.testing.assert_close(pruned[1].net[1].weight, pruned[0].net[1].weight)


class Watched(PruningCallback):
    """Notes the strength, and by name the density of the weight and the factor of the gradients that remain."""

    def begin(self, selection):
        super().begin(selection)
        self.strengths, self.densities, self.factors = [], [], []

    def backward_(self, gradients, latents):
        before = {name: gradient.clone() for name, gradient in gradients.items()}
        super().backward_(gradients, latents)
        self.strengths.append(self.strength)
        weights = {name: self.targets[name].parameter for name in gradients}
        self.densities.append({name: float((weight != 0).double().mean()) for name, weight in weights.items()})
        ratios = {name: gradient / before[name] for name, gradient in gradients.items()}
        self.factors.append({name: float(ratio[ratio > 0].median()) for name, ratio in ratios.items()})


def test_the_scale_grows_with_the_schedule():
    watched = Watched(0.5, schedule=Linear(0.0, 0.5), every_n_steps=1, gradient_scale=3.0)
    fit(build(), watched)
    assert {0.5, 1.0} <= {*watched.strengths}
    for strength, factors in zip(watched.strengths, watched.factors, strict=True):
        assert factors == pytest.approx(dict.fromkeys(factors, 1 + 2 * strength), rel=1e-5)


@resumes
def test_by_default_each_target_has_the_scale_of_its_own_density(tmp_path):
    whole, resumed = (Watched(0.9, schedule=Linear(0.1, 0.6), every_n_steps=4) for _ in range(2))
    fit(build(), whole, Randomness(), Save(tmp_path, [12]))
    fit(build(), resumed, Randomness(), ckpt_path=tmp_path / "step=12.ckpt")
    assert len({*whole.densities[-1].values()}) == 4  # of four layers, in global scope
    for densities, factors in zip(whole.densities, whole.factors, strict=True):
        expected = {name: density ** (-1 / 4) for name, density in densities.items()}
        assert factors == pytest.approx(expected, rel=1e-4)
    assert resumed.factors == whole.factors[-24:]


def test_lbfgs_is_refused():
    with pytest.raises(ValueError, match="need an optimizer that takes one gradient per step, got LBFGS"):
        fit(build(torch.optim.LBFGS, lr=0.1), PruningCallback())


def test_an_infinite_run_is_refused():
    with pytest.raises(ValueError, match=r"need a run of known length .* set max_steps, or max_epochs"):
        fit(build(), PruningCallback(), max_epochs=-1)


def test_wanda_needs_inputs_that_can_be_told_apart():
    class Grouped(Digits):
        def __init__(self):
            super().__init__()
            self.net[3] = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2)

    with pytest.raises(ValueError, match=r"convolutions with groups=1 .* got 'net\.3\.weight' of a Conv2d"):
        fit(Grouped(), PruningCallback(criterion=criteria.wanda))


def test_wanda_reads_inputs_that_come_by_name():
    class Named(nn.Linear):
        def __call__(self, x):
            return super().__call__(input=x)

    class ByName(Digits):
        def __init__(self):
            super().__init__()
            self.net[11] = Named(32, 10)

    module = ByName()
    fit(module, PruningCallback(0.5, criterion=criteria.wanda, scope="layer"))
    assert int((module.net[11].weight == 0).sum()) == 160


@pytest.mark.parametrize(
    ("sparsity", "floor", "kept"), [(0.9, 0.01, 4), (0.85, 0.1, 32), (0.9, None, 10), (0.98, None, 2)]
)
def test_a_layer_of_small_weights_keeps_the_floor(sparsity, floor, kept):
    """By default three tenths of the fraction that stays on average: 0.03 x 320 at 90 %, 0.006 x 320 at 98 %."""
    module = build()
    with torch.no_grad():
        module.net[11].weight.mul_(1e-6)
    fit(module, PruningCallback(sparsity, floor=floor, schedule=Constant()), max_epochs=1)
    assert int(torch.count_nonzero(module.net[11].weight)) == kept  # of 320
    assert zeros(module)[0] == round(sparsity * 3592)


def test_a_sparsity_beyond_the_floor_holds_and_the_plan_says_so(caplog):
    module = build()
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        fit(module, PruningCallback(0.995, floor=0.01, schedule=Constant()), max_epochs=1)
    assert zeros(module)[0] == round(0.995 * 3592)
    assert "every target keeps 0.005: floor=0.01 is out of reach" in caplog.text


def test_a_dead_layer_is_said():
    module = build()
    with torch.no_grad():
        module.net[11].weight.mul_(1e-6)
    with pytest.warns(UserWarning, match=r"every weight of 'net\.11\.weight' is masked, so its layer passes no signal"):
        fit(module, PruningCallback(0.9, floor=0.0, schedule=Constant()), max_epochs=1)


@pytest.mark.filterwarnings("ignore:PruningCallback. the run ended at 100% of its length")
@pytest.mark.parametrize("schedule", [Constant(), SOON])
@pytest.mark.parametrize("criterion", [criteria.taylor, criteria.wanda])
def test_what_a_criterion_cannot_score_is_waited_for_and_said(criterion, schedule):
    class Spare(Digits):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.spare = nn.Linear(4, 4)

    dense, module = build(kind=Spare), build(kind=Spare)
    fit(dense)
    with pytest.warns(
        UserWarning, match=r"PruningCallback waits: .* none has reached spare\.weight so far; add what is"
    ):
        fit(module, PruningCallback(0.9, criterion=criterion, schedule=schedule, every_n_steps=3))
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), dense.parameters(), strict=True))
    fit(module, PruningCallback(0.9, criterion=criterion, schedule=schedule, every_n_steps=3, exclude=("spare",)))
    assert abs(zeros(module, "net.0.weight", "net.3.weight", "net.9.weight", "net.11.weight")[0] - 0.9 * 3592) <= 1


def test_the_plan_is_printed(caplog):
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        fit(build(), PruningCallback(0.9, exclude=("net.0",)), max_epochs=1)
    plan = next(r.getMessage() for r in caplog.records if r.getMessage().startswith("PruningCallback"))
    assert "0.9 sparse by magnitude" in plan
    assert "3,520 weights in 3 tensors: net.3.weight, net.9.weight, net.11.weight" in plan
    assert "left alone, excluded: net.0.weight" in plan
    assert "left alone, normalization: net.1.weight" in plan


def test_a_run_cut_short_says_how_far_it_came():
    module = build()

    class Stop(PruningCallback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = True

    callback = Stop(0.9, schedule=Linear(0.0, 1.0), every_n_steps=1)
    with pytest.warns(UserWarning, match="Stop: the run ended at 33% of its length, before .* at strength 0.33 of 1"):
        fit(module, callback)
    pruned, total = zeros(module)
    assert abs(pruned / total - 0.3) < 0.01


def test_validation_alone_needs_no_fit():
    trainer(PruningCallback()).validate(build(), held_out(), verbose=False)
    trainer(PruningCallback(), max_epochs=1, limit_train_batches=2).fit(build(), Batches(), held_out())


class HalfMemory(torch.optim.Optimizer):
    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                memory = self.state[p].setdefault("mean", torch.zeros_like(p, dtype=torch.bfloat16))
                p.sub_(memory.mul_(0.9).add_(p.grad), alpha=group["lr"])
        return loss


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        (torch.optim.Adam, {"lr": 0.01}),
        (HalfMemory, {"lr": 0.01}),
    ],
)
def test_the_optimizer_forgets_what_is_pruned(optimizer, options):
    module = build(optimizer, **options)
    run = fit(module, PruningCallback(0.8, schedule=Linear(0.2, 0.6), every_n_steps=5))
    (optimizer,) = run.optimizers
    for parameter in weights(module).values():
        (state,) = [state for p, state in optimizer.state.items() if p.data_ptr() == parameter.data_ptr()]
        memories = [memory for memory in state.values() if memory.shape == parameter.shape]
        assert memories
        for memory in memories:
            assert not memory[parameter == 0].any()
            assert memory.any()


def _fit_in_shards():
    module = build(kind=sharded(Digits, "net.0", "net.3", "net.9", "net.11", "net"))
    pruning = PruningCallback(0.8, pattern=Block(2, 4), exclude=("net.0",))
    with pytest.raises(ValueError, match="blocks of 2 x 4 fill .*, got 'a shard of net.11.weight' as 5 x "):
        trainer(pruning, **fsdp2()).fit(module, Batches(), held_out())


def test_blocks_that_do_not_fill_a_shard_are_refused_on_every_rank():
    run_distributed(_fit_in_shards)


class Stream(torch.utils.data.IterableDataset):
    """Digits one after the other, without a length."""

    def __iter__(self):
        return zip(*digits(), strict=True)


@pytest.mark.parametrize("length", [{"max_epochs": 2, "limit_train_batches": 3}, {"max_epochs": -1, "max_steps": 6}])
def test_a_stream_has_the_length_that_the_trainer_gives_it(length):
    pruning, loader = PruningCallback(0.5), torch.utils.data.DataLoader(Stream(), 8)
    run = trainer(pruning, **length)
    run.fit(build(), loader, held_out())
    assert (run.global_step, pruning.strength) == (6, 1.0)


def test_a_stream_without_a_length_is_refused():
    module, dense = build(), build()
    with pytest.raises(ValueError, match=r"need a run of known length .* limit_train_batches"):
        trainer(PruningCallback(0.5), max_epochs=2).fit(module, torch.utils.data.DataLoader(Stream(), 8), held_out())
    assert torch.equal(module.net[0].weight, dense.net[0].weight)
