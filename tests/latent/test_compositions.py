"""Which weights are projected together."""

import torch

from lightning_compress.latent.compositions import Composition

LARGE = 1 << 21


class Common:
    """All weights become the mean of all, as one codebook for all of them would do."""

    active, masks_in_place = ("a", "b"), False

    def project_(self, weights):
        mean = torch.cat([weight.flatten() for weight in weights.values()]).mean()
        for weight in weights.values():
            weight.fill_(mean)


def test_weights_of_any_size_may_share_their_projection():
    weights = {"a": torch.zeros(LARGE), "b": torch.ones(LARGE)}
    composition = Composition([Common()])
    held = {name: weight.clone() for name, weight in weights.items()}
    composition.project_(weights, {})
    assert all(bool((weight == 0.5).all()) for weight in weights.values())
    assert composition.differing(held, {}, weights) == {}


def test_weights_with_offsets_take_the_memory_of_some_at_a_time():
    seen = []

    class Look(Common):
        def project_(self, weights):
            seen.append(list(weights))

    weights = {"a": torch.zeros(LARGE), "b": torch.ones(LARGE)}
    Composition([Look()]).project_(weights, {name: lambda: torch.zeros(LARGE) for name in weights})
    assert seen == [["a"], ["b"]]
