"""Statistics of batch normalization are frozen with quantized activations and without, and thaw when the run ends."""

import pytest
import torch
from lightning.pytorch import Callback

from lightning_compress import QATCallback
from tests.support.classifiers import Conv, fit


@pytest.mark.parametrize("bits", [8, None])
def test_statistics_are_frozen_with_and_without_quantized_activations(bits):
    module, seen = Conv(), []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, *args) -> None:
            seen.append(module.net.stem[1].running_var.clone())

    fit(module, QATCallback(activation_bits=bits, freeze_norms_at=0.75), Watch())
    assert len(seen) == 16
    assert not torch.equal(seen[10], seen[11])
    assert all(torch.equal(seen[11], later) for later in seen[12:])
    assert module.net.stem[1].training
