"""Checkpoints before, at and after the split; several processes."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging

from lightning_compress import LowRankCallback, load_compressed, split_low_rank
from lightning_compress.schedules import Linear
from tests.support.distributed import run_distributed
from tests.support.runs import Randomness, Save, resumes, same, trainer, uninterrupted
from tests.support.shards import differing, fsdp2, gathered, sharded
from tests.support.toys import Batches, Digits, build, fit, held_out

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def callback(**settings):
    return LowRankCallback(0.5, **{"schedule": Linear(0.1, 0.5), "every_n_steps": 3, **settings})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run of 36 steps, split after step 18, and its checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    module = build()
    fit(module, callback(), Randomness(), Save(folder, range(1, 37)))
    return module, folder


def is_split(path):
    return "net.3.first.weight" in torch.load(path, weights_only=True)["state_dict"]


@resumes
@pytest.mark.parametrize("step", [2, 10, 17, 18, 19, 30, 36])
def test_resumed_is_bit_identical_before_at_and_after_the_split(finished, step):
    module, folder = finished
    assert is_split(folder / f"step={step}.ckpt") == (step >= 18)
    resumed = build()
    fit(resumed, callback(), Randomness(), ckpt_path=folder / f"step={step}.ckpt")
    assert same(resumed, module)


@resumes
@pytest.mark.parametrize("step", [10, 25])
def test_a_run_of_named_layers_is_resumed(tmp_path, step):
    """The patterns name layers that are no longer linear, and other patterns leave their factors alone."""
    module = build()
    fit(module, callback(include=("net.9", "net.3.weight")), Randomness(), Save(tmp_path, (10, 25, 30)))
    resumed = build()
    again = callback(include=("net.9", "net.3.weight"))
    fit(resumed, again, Randomness(), ckpt_path=tmp_path / f"step={step}.ckpt")
    assert same(resumed, module)
    assert again.metrics()["parameters"] <= 0.5


@resumes
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_resume_with_other_optimizers_and_an_average(tmp_path, optimizer):
    options = {"lr": 0.01, "momentum": 0.9} if optimizer is torch.optim.SGD else {"lr": 0.01, "fused": True}

    def run(*callbacks, ckpt_path=None):
        module = build(optimizer, **options)
        fit(module, EMAWeightAveraging(decay=0.9), callback(), Randomness(), *callbacks, ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, (15, 20))


@resumes
def test_a_run_whose_layers_are_left_whole_is_resumed(tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = build()
        fit(module, callback(split=False), Randomness(), *callbacks, ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, (10, 30))


def metrics(module, path=None):
    return trainer(callback()).validate(module, held_out(), ckpt_path=path, verbose=False)[0]


@resumes
def test_evaluation_splits_a_whole_model_and_makes_a_split_one_whole(finished):
    module, folder = finished
    fresh, expected = Digits(), metrics(module)
    assert metrics(fresh, folder / "step=36.ckpt") == expected
    assert type(fresh.net[3]).__name__ == "Factorized"
    dense = metrics(fresh, folder / "step=3.ckpt")
    assert type(fresh.net[3]) is torch.nn.Conv2d
    assert metrics(fresh, folder / "step=36.ckpt") == expected != dense


def test_load_compressed_needs_no_trainer(finished):
    module, folder = finished
    loaded = load_compressed(Digits, folder / "step=36.ckpt")
    assert type(loaded) is Digits
    assert same(loaded, module)
    assert torch.equal(loaded.eval()(IMAGES), module.eval()(IMAGES))


def test_a_module_that_is_split_after_fit_is_saved_and_loaded(tmp_path):
    module = build()
    run = fit(module, callback(split=False))
    split_low_rank(module)
    run.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    assert same(load_compressed(Digits, tmp_path / "weights.ckpt"), module)


def test_a_plain_load_says_what_is_wrong(finished):
    with pytest.raises(RuntimeError, match="net.3.first.weight"):
        Digits.load_from_checkpoint(finished[1] / "step=36.ckpt")


def _ranks():
    torch.use_deterministic_algorithms(True)
    module = build()
    L.seed_everything(0, verbose=False)
    run = trainer(callback(), strategy="ddp", devices=2)
    run.fit(module, Batches(seed=run.global_rank + 1), held_out())
    return gathered(module)


def test_every_rank_has_the_same_split_model():
    first, second = run_distributed(_ranks)
    assert "net.3.first.weight" in first
    assert not differing(first, second)


Sharded = sharded(Digits, "net.0", "net.3", "net.9", "net")


def _projected(kind):
    """Both processes see the same images, so that their mean gradient is that of one process."""
    module, options = build(kind=kind), fsdp2() if kind is Sharded else {}
    method = callback(split=kind is Sharded)  # under FSDP2 the layers are left whole, with a warning
    L.seed_everything(0, verbose=False)
    trainer(method, **options).fit(module, Batches(), held_out())
    count = split_low_rank(module)
    weights = {n: p.detach().numpy() for n, p in module.named_parameters()}
    return method.ranks, count, weights


@pytest.mark.filterwarnings("ignore:.*layers stay whole")
def test_sharded_weights_are_projected_as_whole_ones_and_split_after_fit():
    ((ranks, count, expected),) = run_distributed(_projected, Digits, world_size=1)
    assert count == len(ranks) > 0
    for found_ranks, found_count, weights in run_distributed(_projected, Sharded):
        assert found_ranks == ranks
        assert found_count == count
        for name in expected:
            torch.testing.assert_close(torch.tensor(weights[name]), torch.tensor(expected[name]), rtol=1e-3, atol=1e-4)
