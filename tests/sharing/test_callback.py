"""WeightSharingCallback: its maths, its targets, and its life in a Trainer."""

from itertools import pairwise

import lightning as L
import pytest
import torch
from torch import nn

from lightning_compress import NM, PruningCallback
from lightning_compress.latent import LatentWeights
from lightning_compress.schedules import Constant, Linear, Step
from lightning_compress.sharing import WeightSharingCallback, gradients, kmeans
from lightning_compress.targets import select
from tests.support.distributed import run_distributed
from tests.support.methods import Grid
from tests.support.runs import Randomness, resumes, trainer, uninterrupted
from tests.support.shards import differing, fsdp2, gathered, sharded
from tests.support.toys import Batches, Digits, Manual, build, fit, held_out

# The method without a Trainer.


def method(*weights, strength=1.0, **options):
    """The callback, begun on linear layers that hold the given weights, and these by name."""
    net = nn.Sequential(*[nn.Linear(w.shape[1], w.shape[0]) for w in weights])
    callback = WeightSharingCallback(**options)
    callback.begin(select(net))
    callback.strength = strength
    return callback, {name: w.clone() for name, w in zip(callback.targets, weights, strict=True)}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_every_weight_holds_the_value_of_its_cluster():
    latent = normal(20, 30)
    callback, weights = method(latent, clusters=8)
    callback.update(weights)
    callback.project_(weights)
    codebook = kmeans.fit(latent, 8)
    torch.testing.assert_close(weights["0.weight"], codebook[kmeans.assign(latent, codebook)])


def test_one_codebook_for_all_in_global_scope():
    latents = normal(20, 30), 3 * normal(10, 20, seed=1)
    callback, weights = method(*latents, clusters=8, scope="global")
    callback.update(weights)
    callback.project_(weights)
    whole = torch.cat([latent.flatten() for latent in latents])
    codebook = kmeans.fit(whole, 8)
    for latent, weight in zip(latents, weights.values(), strict=True):
        torch.testing.assert_close(weight, codebook[kmeans.assign(latent, codebook)])


def test_zero_keeps_an_entry_of_its_own():
    latent = normal(20, 30) * (normal(20, 30, seed=1) > 0.5)
    callback, weights = method(latent, clusters=4)
    callback.update(weights)
    callback.project_(weights)
    weight = weights["0.weight"]
    assert torch.equal(weight == 0, latent == 0)
    others = latent[latent != 0]
    torch.testing.assert_close(weight[latent != 0].unique(), kmeans.fit(others, 3))


def test_zeros_that_come_and_go_between_fits():
    latent = normal(20, 30)
    callback, weights = method(latent, clusters=4)
    callback.update(weights)
    pruned = latent * (latent.abs() > 0.3)
    for name, asked in ((pruned, pruned), (latent, latent), (torch.zeros(20, 30), torch.zeros(20, 30))):
        weights["0.weight"].copy_(name)
        callback.project_(weights)
        assert len(weights["0.weight"].unique()) <= 4
        assert torch.equal(weights["0.weight"] == 0, asked == 0)
    weights["0.weight"].copy_(pruned)
    callback.update(weights)  # zeros are members now
    weights["0.weight"].copy_(latent)  # and grow back
    callback.project_(weights)
    assert (weights["0.weight"] != 0).all()
    codebook = weights["0.weight"].unique()
    nearest = codebook[kmeans.assign(latent, codebook)]
    back = pruned == 0
    assert torch.equal(weights["0.weight"][back], nearest[back])


def test_projecting_changes_no_state():
    latent = normal(20, 30)
    callback, weights = method(latent, clusters=4)
    callback.update(weights)
    before = {name: codes.clone() for name, codes in callback.tensors()["codes"].items()}
    callback.project_({"0.weight": latent * (latent > 0)})
    callback.project_({"0.weight": normal(20, 30, seed=3)})
    assert all(torch.equal(codes, before[name]) for name, codes in callback.tensors()["codes"].items())


@pytest.mark.parametrize("rule", [gradients.mean, gradients.summed])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_once_the_clusters_stay_their_gradients_are_shared(rule, scope):
    latents = normal(20, 30), normal(10, 20, seed=1)
    callback, weights = method(*latents, clusters=4, scope=scope, gradient=rule)
    callback.update(weights)
    codes = callback.tensors()["codes"]
    own = {name: normal(*w.shape, seed=k + 5) for k, (name, w) in enumerate(weights.items())}
    shared = {name: gradient.clone() for name, gradient in own.items()}
    callback.backward_(shared, weights)
    for name in weights:
        mine = own if scope == "global" else {name: own[name]}
        for k in codes[name].unique():
            members = torch.cat([mine[other][codes[other] == k] for other in mine]).double()
            expected = members.mean() if rule is gradients.mean else members.sum()
            torch.testing.assert_close(
                shared[name][codes[name] == k].double(),
                expected.expand(int((codes[name] == k).sum())),
                rtol=1e-5,
                atol=1e-6,
            )


def test_what_is_zero_keeps_its_own_gradient():
    latent = normal(20, 30) * (normal(20, 30, seed=1) > 0)
    callback, weights = method(latent, clusters=4, gradient=gradients.mean)
    callback.update(weights)
    own = normal(20, 30, seed=2)
    shared = own.clone()
    callback.backward_({"0.weight": shared}, weights)
    assert torch.equal(shared[latent == 0], own[latent == 0])
    assert len(shared[latent != 0].unique()) == 3


@pytest.mark.parametrize(("strength", "rule"), [(0.99, gradients.mean), (0.99, None), (1.0, None)])
def test_while_the_clusters_grow_fewer_weights_change_clusters_by_default_to_the_end(strength, rule):
    latent = normal(20, 30)
    callback, weights = method(latent, clusters=4, strength=strength, gradient=rule)
    callback.update(weights)
    callback.project_(weights)
    codebook = weights["0.weight"].unique()
    moved = latent.clone()
    moved[0, 0] = codebook[0]
    moved[0, 1] = codebook[-1]
    own = normal(20, 30, seed=2)
    gradient = own.clone()
    callback.backward_({"0.weight": gradient}, {"0.weight": moved})
    assert torch.equal(gradient, own)
    callback.stepped()
    weights["0.weight"].copy_(moved)
    callback.project_(weights)
    assert weights["0.weight"][0, 0] == weights["0.weight"].min()
    assert weights["0.weight"][0, 1] == weights["0.weight"].max()


@pytest.mark.parametrize(("clusters", "halfway"), [(16, 64), (2, 23), (255, 255), (1000, 1000)])
def test_the_number_of_values_falls_by_equal_ratios(clusters, halfway):
    callback = WeightSharingCallback(clusters)
    counts = []
    for strength in (1e-9, 0.5, 1.0):
        callback.strength = strength
        counts.append(callback.entries)
    assert counts == [max(255, clusters), halfway, clusters]


def test_a_layer_that_starts_at_zero_learns():
    callback, weights = method(torch.zeros(4, 5), clusters=4)
    callback.update(weights)
    callback.project_(weights)
    assert not weights["0.weight"].any()
    gradient = normal(4, 5)
    shared = gradient.clone()
    callback.backward_({"0.weight": shared}, weights)
    assert torch.equal(shared, gradient)
    for step in (callback.project_, callback.update, callback.project_):
        weights["0.weight"].copy_(gradient)
        step(weights)
    assert len(weights["0.weight"].unique()) == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    callback, weights = method(normal(20, 30).to(dtype), clusters=4)
    callback.update(weights)
    callback.project_(weights)
    assert weights["0.weight"].dtype == dtype
    assert len(weights["0.weight"].unique()) == 4


# Arguments and targets.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 1}, "need clusters >= 2, got clusters=1"),
        ({"scope": "Layer"}, "need scope 'layer' or 'global', got scope='Layer'"),
        ({"every_n_steps": 0}, "need every_n_steps >= 1"),
    ],
)
def test_refuses_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        WeightSharingCallback(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 16.0}, "need clusters as an integer, got 16.0"),
        ({"clusters": "16"}, "need clusters as an integer, got '16'"),
        ({"clusters": True}, "need clusters as an integer, got True"),
        ({"init": "density"}, "need init as a function or an object, got 'density'"),
        ({"gradient": "mean"}, "need gradient as a function or an object, got 'mean'"),
        ({"schedule": Step}, r"need schedule as an object, got the class Step: write Step\(...\)"),
        ({"include": "net"}, r"need include as a sequence of patterns, got 'net': write \('net',\)"),
    ],
)
def test_refuses_arguments_of_another_kind(options, message):
    with pytest.raises(TypeError, match=message):
        WeightSharingCallback(**options)


def test_refuses_sparse_gradients():
    target = select(nn.Sequential(nn.Embedding(4, 2, sparse=True))).targets[0]
    with pytest.raises(ValueError, match="need dense gradients, got '0.weight'"):
        WeightSharingCallback().check(target)


def test_refuses_one_codebook_for_weights_of_two_dtypes():
    module = build()
    module.net[9].double()
    words = (
        r"need targets of one dtype on one device for scope='global', got torch.float32 on cpu: net.0.weight, .*; "
        r"torch.float64 on cpu: net.9.weight: use scope='layer'"
    )
    with pytest.raises(ValueError, match=words):
        fit(module, WeightSharingCallback(8, scope="global"))


def test_refuses_one_codebook_under_two_optimizers():
    with pytest.raises(ValueError, match="need one optimizer that steps all targets for scope='global'"):
        fit(build(kind=Manual), WeightSharingCallback(scope="global", schedule=Constant()))


def test_refuses_weights_that_are_not_finite():
    module = build(torch.optim.SGD, lr=1e30)
    with pytest.raises(RuntimeError, match="need finite weights to compress, got NaN or infinity in net.0.weight"):
        fit(module, WeightSharingCallback(4, schedule=Step(0.5)))


# In a Trainer.


def values(module):
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.ndim > 1])


@resumes
def test_one_codebook_for_the_whole_model_resumes_bit_identical(tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = build()
        sharing = WeightSharingCallback(8, scope="global", schedule=Linear(0.1, 0.6), every_n_steps=5)
        fit(module, sharing, Randomness(), *callbacks, ckpt_path=ckpt_path)
        return module

    module = uninterrupted(run, tmp_path, (7, 14, 21, 28, 35))
    assert len(values(module).unique()) == 8


@pytest.mark.parametrize(
    ("optimizer", "options"), [(torch.optim.AdamW, {"lr": 3e-3}), (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9})]
)
def test_shared_weights_learn(optimizer, options):
    module = build(optimizer, **options)
    run = fit(module, WeightSharingCallback(16, schedule=Linear(0.1, 0.7)), max_epochs=6)
    dense = fit(build(optimizer, **options), max_epochs=6)
    assert run.callback_metrics["val_acc"] > dense.callback_metrics["val_acc"] - 0.05


def test_the_shared_values_are_trained_once_the_clusters_stay():
    seen = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen.append(pl_module.net[9].weight.detach().unique(return_inverse=True))

    fit(build(), WeightSharingCallback(8, schedule=Constant(), gradient=gradients.mean), Look(), max_epochs=1)
    for (before, members), (after, still) in pairwise(seen):
        assert (before != after).any()
        assert torch.equal(members, still)


# With others.


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_sparse_shared_and_on_the_grid(per_channel, order):
    three = [
        PruningCallback(pattern=NM(2, 4), schedule=Linear(0.1, 0.5), every_n_steps=2, exclude=("net.0",)),
        WeightSharingCallback(6, schedule=Linear(0.1, 0.6), every_n_steps=4),
        Grid(per_channel),
    ]
    module = build()
    fit(module, *[three[k] for k in order])
    for name, weight in module.named_parameters():
        if weight.ndim < 2:
            continue
        rows = weight.detach().flatten(1) if per_channel else weight.detach().view(1, -1)
        assert all(len(row.unique()) <= 6 for row in rows)
        on_grid = weight.detach().clone()
        three[2].project_({name: on_grid})
        assert torch.equal(on_grid, weight)
        if name != "net.0.weight":
            assert ((weight.movedim(1, -1).reshape(-1, 4) == 0).sum(1) >= 2).all()


def test_a_run_whose_projections_are_exchanged_keeps_latents():
    callback, weights = method(normal(20, 30), clusters=4)
    latents = LatentWeights(weights, [callback])
    latents.update([callback])
    once = weights["0.weight"].clone()
    latents.adopt()
    assert torch.equal(weights["0.weight"], once)
    torch.testing.assert_close(latents.latents()["0.weight"], normal(20, 30), rtol=0, atol=0)


# Several processes.


Sharded = sharded(Digits, "net")


def _shared(scope, is_sharded):
    torch.use_deterministic_algorithms(True)
    module = build(kind=Sharded if is_sharded else Digits)
    L.seed_everything(0, verbose=False)
    run = trainer(
        PruningCallback(0.7, schedule=Linear(0.1, 0.5), every_n_steps=3),
        WeightSharingCallback(8, scope=scope, schedule=Linear(0.1, 0.6), every_n_steps=5),
        **(fsdp2() if is_sharded else {"strategy": "ddp", "devices": 2}),
    )
    run.fit(module, Batches(seed=run.global_rank + 1), held_out())
    return {name: weight for name, weight in gathered(module).items() if weight.ndim > 1}


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("is_sharded", [False, True])
def test_every_process_has_the_same_codebook(scope, is_sharded):
    first, second = run_distributed(_shared, scope, is_sharded)
    assert not differing(first, second)
    tensors = [torch.from_numpy(weight).flatten() for weight in first.values()]
    for one in [torch.cat(tensors)] if scope == "global" else tensors:
        assert len(one.unique()) <= 8
    assert abs(int((torch.cat(tensors) == 0).sum()) - 0.7 * sum(map(len, tensors))) <= 1
