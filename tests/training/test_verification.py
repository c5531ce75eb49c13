"""A promise that does not hold stops the run, with numbers: at its end, and on demand after every update."""

import lightning as L
import pytest
import torch

from lightning_compress import NM, Block, PruningCallback, QATCallback
from lightning_compress.latent import LatentWeights
from lightning_compress.pruning.patterns import Pattern
from lightning_compress.schedules import Constant, Linear
from lightning_compress.sharing import WeightSharingCallback
from lightning_compress.targets import select
from tests.support.toys import build, fit


class Forgetful(PruningCallback):
    """Lets five pruned weights live."""

    masks_in_place = False  # its projection is no mask

    def project_(self, weights):
        super().project_(weights)
        weights["net.9.weight"].view(-1)[:20] = 0.125


class Lazy(PruningCallback):
    """Prunes half of what was asked."""

    def update(self, weights):
        asked, self.sparsity = self.sparsity, self.sparsity / 2
        super().update(weights)
        self.sparsity = asked


class Uneven(NM):
    """Masks the smallest weights of a tensor, whatever their groups."""

    def units(self, scores):
        return scores


class Ragged(Block):
    """Keeps the first weight of every block."""

    def spread(self, kept, shape):
        mask = super().spread(kept, shape)
        mask.flatten(1)[:: self.rows, :: self.columns] = True
        return mask


class Diagonal(Pattern):
    """Promises that weights off the diagonal are masked, and masks others."""

    sparsity = 0.5

    def units(self, scores):
        return scores

    def spread(self, kept, shape):
        return kept

    def broken(self, kept, strength):
        return int(kept.flatten(1).triu(1).sum())


class Generous(WeightSharingCallback):
    """Adds values to the codebook."""

    def project_(self, weights):
        super().project_(weights)
        weights["net.9.weight"].view(-1)[:3] = torch.tensor([0.125, 0.25, 0.5])


BROKEN = [
    (lambda: Forgetful(0.9, schedule=Constant()), r"need 90.0000% of the 3592 weights .*, of which 1?\d are not zero"),
    (
        lambda: Lazy(0.5, schedule=Constant()),
        "need 50.0000% of the 3592 weights .* to be zero, got 898: 898 are masked",
    ),
    (
        lambda: PruningCallback(pattern=Uneven(2, 4), schedule=Constant(), exclude=("net.0",)),
        r"need zeros in Uneven\(n=2, m=4\) in net.3.weight, .*, got \d+ broken groups",
    ),
    (
        lambda: PruningCallback(0.5, pattern=Ragged(2, 4), schedule=Constant(), include=("net.9",)),
        "need 50.0000% of the 2048 weights of net.9.weight to be zero, got 896",
    ),
    (
        lambda: PruningCallback(0.9995, pattern=Ragged(8, 32), schedule=Constant(), include=("net.9",)),
        r"need zeros in Ragged\(rows=8, columns=32\) in net.9.weight, got 8 broken groups",
    ),
    (
        lambda: PruningCallback(pattern=Diagonal(), schedule=Constant()),
        r"need zeros in .*Diagonal.* in net.0.weight, .*, got \d+ broken groups",
    ),
    (lambda: Generous(4, schedule=Constant()), "need at most 4 distinct values in net.9.weight, got 7"),
]


class Count(L.Callback):
    def __init__(self):
        self.steps = 0

    def on_train_batch_end(self, *_):
        self.steps += 1


@pytest.mark.parametrize(("callback", "message"), BROKEN)
@pytest.mark.parametrize("debug", [False, True])
def test_a_broken_promise_stops_the_run(callback, message, debug):
    count = Count()
    with pytest.raises(RuntimeError, match=message):
        fit(build(), callback(), count, max_epochs=1, detect_anomaly=debug)
    assert count.steps == (0 if debug else 12)


def test_a_parameter_that_another_hand_changed_is_found():
    callback = WeightSharingCallback(2)
    net = torch.nn.Sequential(torch.nn.Linear(3, 1))
    callback.begin(select(net))
    callback.strength = 1.0
    weights = LatentWeights({"0.weight": net[0].weight}, [callback])
    weights.update([callback])
    with torch.no_grad():
        list(weights.stages())
        net[0].weight[0, 1] = 7.0
        with pytest.raises(RuntimeError, match="need '0.weight' to hold its compressed weights, got others in 1 of 3"):
            list(weights.stages())


@pytest.mark.parametrize(
    "callbacks",
    [
        lambda: [PruningCallback(0.9, schedule=Linear(0.1, 0.8)), WeightSharingCallback(4, schedule=Linear(0.1, 0.8))],
        lambda: [PruningCallback(pattern=NM(2, 4), schedule=Linear(0.1, 0.8), exclude=("net.0",))],
        lambda: [
            PruningCallback(0.7, pattern=Block(2, 4), scope="layer", schedule=Linear(0.1, 0.8), exclude=("net.0",))
        ],
    ],
)
def test_promises_hold_after_every_update(callbacks):
    fit(build(), *callbacks(), max_epochs=1, detect_anomaly=True)


class Last(WeightSharingCallback):
    """Notes the weights that it verifies."""

    outlives = False

    @property
    def outlives_later_projections(self):
        return self.outlives

    def verify(self, weights):
        self.seen = [*getattr(self, "seen", []), {name: weight.clone() for name, weight in weights.items()}]


@pytest.mark.parametrize("outlives", [False, True])
def test_a_promise_that_outlives_later_projections_is_verified_after_them_too(outlives):
    callback, module = Last(4, schedule=Constant()), build()
    callback.outlives = outlives
    fit(module, callback, QATCallback(2, activation_bits=None, schedule=Constant()), max_epochs=1)
    assert len(callback.seen) == 1 + outlives
    held = module.get_parameter("net.9.weight").detach()
    assert [torch.equal(seen["net.9.weight"], held) for seen in callback.seen] == [False, True][: 1 + outlives]
