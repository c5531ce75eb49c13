"""Channels of a model that FSDP2 shards over two processes: masked as in one process, removed afterwards."""

import copy
import warnings

import lightning as L
import pytest
import torch
from torch.distributed.fsdp import FSDPModule, fully_shard

from lightning_compress import QATCallback, remove_zero_channels
from lightning_compress.channels import ChannelPruningCallback, criteria
from lightning_compress.processes import copy_without_weights, is_sharded
from lightning_compress.schedules import Linear, Step
from tests.support.distributed import run_distributed
from tests.support.promises import on_grids
from tests.support.runs import Randomness, Save, trainer
from tests.support.shards import differing, fsdp2, gathered, sharded
from tests.support.toys import Batches, Digits, build, held_out

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
IGNORED = "ignore:.*channels stay as zeros", "ignore:Be aware that when using `ckpt_path`"


Sharded = sharded(Digits, "net.0", "net.3", "net.9", "net")


def pruning(criterion=criteria.magnitude, **settings):
    settings = {"round_to": 4, "schedule": Linear(0.1, 0.5), "every_n_steps": 3, "macs": 0.5, **settings}
    return ChannelPruningCallback(criterion=criterion, **settings)


def run(kind, callback, *others, seed=0, **settings):
    """Fit; the same on every rank but for the order of the images."""
    module = build(kind=kind)
    ckpt_path = settings.pop("ckpt_path", None)
    options = settings | (fsdp2() if kind is Sharded else {})
    L.seed_everything(0, verbose=False)
    fitted = trainer(callback, *others, **options)
    rank = fitted.global_rank if kind is Sharded else 0
    fitted.fit(module, Batches(seed=seed * rank), held_out(), ckpt_path=ckpt_path)
    return module.eval()


def _masked(kind, criterion):
    callback = pruning(criterion, remove=False)
    module = run(kind, callback, num_sanity_val_steps=1)  # FSDP2 leaves the whole weights in the module after it
    masks = {name: units.numpy() for name, units in callback._masks.units.items()}
    return gathered(module), masks, callback.metrics()["macs"]


@pytest.mark.filterwarnings(*IGNORED)
@pytest.mark.parametrize("criterion", [criteria.magnitude, criteria.taylor])
def test_two_shards_are_pruned_as_one_process_prunes_the_whole(criterion):
    """Both processes see the same images, so that their mean gradient is the gradient of one process, exactly."""
    ((expected, masks, macs),) = run_distributed(_masked, Digits, criterion, world_size=1)
    assert any(units.any() for units in masks.values())
    assert macs <= 0.5
    for weights, found, left in run_distributed(_masked, Sharded, criterion):
        assert not differing(found, masks)
        assert not differing(weights, expected)
        assert left == macs


def _narrowed(folder):
    """An uninterrupted run and one resumed from its middle, with other images on each rank."""

    module = run(Sharded, pruning(), Randomness(), Save(folder, [10]), seed=1)
    masked = module(IMAGES).detach()
    removed = remove_zero_channels(module, IMAGES)
    resumed = run(Sharded, pruning(), Randomness(), seed=1, ckpt_path=f"{folder}/step=10.ckpt")
    remove_zero_channels(resumed, IMAGES)
    assert not is_sharded(module)
    return gathered(module), gathered(resumed), removed, (module(IMAGES) - masked).abs().max().item()


@pytest.mark.filterwarnings(*IGNORED)
def test_a_sharded_model_is_gathered_and_narrowed_after_fit(tmp_path):
    (first, resumed, removed, off), (second, *_) = run_distributed(_narrowed, str(tmp_path))
    assert not differing(first, second)
    assert not differing(first, resumed)
    assert off < 1e-5
    assert removed > 0
    saved = torch.load(tmp_path / "step=10.ckpt", weights_only=True)
    alone = Digits()
    alone.load_state_dict(saved["state_dict"])
    (masks,) = [state["masked"] for key, state in saved["callbacks"].items() if key.startswith("ChannelPruning")]
    assert [name for name, units in masks.items() if units.any()]
    assert not alone.net[3].weight[masks["net.3"]].any()
    assert len(first["net.3.weight"]) < len(alone.net[3].weight)


def _quantized():
    module = run(Sharded, pruning(), QATCallback(schedule=Step(0.3), every_n_steps=3))
    masked = module(IMAGES).detach()
    removed = remove_zero_channels(module, IMAGES)
    return gathered(module), on_grids(module), removed, (module(IMAGES) - masked).abs().max().item()


@pytest.mark.filterwarnings(*IGNORED)
def test_pruned_and_quantized_in_one_fit_then_narrowed():
    (first, on_grid, removed, off), (second, *_) = run_distributed(_quantized)
    assert not differing(first, second)
    assert on_grid
    assert removed > 0
    assert off < 1e-5


def _notices(remove):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(Sharded, pruning(remove=remove), max_steps=1)
    return [str(notice.message) for notice in caught if "channels stay as zeros" in str(notice.message)]


@pytest.mark.parametrize("remove", [True, False])
def test_the_warning_when_fit_starts(remove):
    said = " ".join(run_distributed(_notices, remove)[0])
    assert ("parameters that ModelParallelStrategy shards cannot change their shapes" in said) == remove
    assert ("call remove_zero_channels after fit" in said) == remove


def _refused(budget, message, sizes):
    refusing = trainer(ChannelPruningCallback(**budget), **fsdp2(**sizes))
    with pytest.raises(ValueError, match=message):
        refusing.fit(build(kind=Sharded), Batches(), held_out())
    return True


@pytest.mark.parametrize(
    ("budget", "shards", "message"),
    [
        ({"macs": 0.5}, 1, r"need ModelParallelStrategy\(tensor_parallel_size=1\) to prune channels, got 2"),
        ({"latency": 0.5}, 2, r"need macs, parameters or channels under ModelParallelStrategy, got latency=0\.5"),
    ],
)
def test_impossible_budgets_and_strategies_are_refused(budget, shards, message):
    sizes = {"data_parallel_size": shards, "tensor_parallel_size": 2 // shards}
    assert run_distributed(_refused, budget, message, sizes) == [True, True]


def _copied():
    module = Digits()
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    fully_shard(module.net[3], mesh=mesh)
    fully_shard(module.net, mesh=mesh)
    classes = [type(layer) for layer in module.modules()]
    plain = copy_without_weights(module)
    assert [type(layer) for layer in module.modules()] == classes
    assert isinstance(module.net, FSDPModule)
    copy.deepcopy(plain).load_state_dict(Digits().state_dict())
    module(IMAGES).sum().backward()
    return [type(layer).__name__ for layer in plain.modules()], plain(IMAGES).shape


def test_a_copy_is_an_ordinary_module_and_leaves_the_sharded_one_as_it_is():
    for kinds, shape in run_distributed(_copied):
        assert kinds == [type(layer).__name__ for layer in Digits().modules()]
        assert shape == (5, 10)
