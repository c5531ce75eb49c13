"""Activations of a model that FSDP2 shards over two processes: quantized where one process quantizes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from examples.loaders import TensorLoader
from lightning_compress.loading import load_compressed
from lightning_compress.quantization import QATCallback
from lightning_compress.quantization.activations.quantizers import Place, quantizers_of
from lightning_compress.schedules import Step
from tests.support.classifiers import Conv, Dense, loader, trainer
from tests.support.distributed import run_distributed
from tests.support.runs import Save
from tests.support.shards import differing, fsdp2, gathered, sharded

IMAGES = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
CHECKPOINTS = "ignore:Be aware that when using `ckpt_path`"
UNSYNCED = "ignore:It is recommended to use `self.log"
LAYERS = [name for name, layer in Conv().named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
Sharded = sharded(Conv, "net.stem", "net.blocks.0", "net.blocks.1", "net.blocks.2", "net")
Layers = sharded(Conv, *LAYERS, "net")


class Mixed(Dense):
    """The layers in bfloat16, whatever comes."""

    around = MixedPrecisionPolicy()

    def configure_model(self) -> None:
        mesh = self.device_mesh["data_parallel"]
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, output_dtype=torch.float32)
        for layer in (self.net[1], self.net[3]):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        fully_shard(self.net, mesh=mesh, mp_policy=self.around)


class MixedAround(Mixed):
    around = MixedPrecisionPolicy(param_dtype=torch.bfloat16, output_dtype=torch.float32)


def run(kind: type[Conv], *others: Callback, range_lr: float = 0.0, same: bool = True, **settings: Any) -> Conv:
    """Fit; with ``same`` images on every rank, or twice as bright ones on the second."""
    torch.use_deterministic_algorithms(True)
    ckpt_path = settings.pop("ckpt_path", None)
    if kind not in (Conv, Dense):
        settings |= fsdp2()
    seed_everything(0, verbose=False)
    module = kind()
    fitted = trainer(QATCallback(range_lr=range_lr, schedule=Step(at=0.4), every_n_steps=2), *others, **settings)
    batches = loader()
    if fitted.global_rank and not same:
        batches = TensorLoader(2 * batches.tensors[0], batches.tensors[1], batch_size=16)
    fitted.fit(module, batches, loader(2), ckpt_path=ckpt_path)
    return module.eval()


def state(module: Conv) -> dict[str, Any]:
    """Whole weights, ranges, and what comes out, as numbers."""
    outputs = module(IMAGES).detach().numpy()
    quantizers = quantizers_of(module).items()
    ranges = {str(place): [float(bound) for bound in (q.low, q.high, q.scale)] for place, q in quantizers}
    return {**gathered(module), **ranges, "outputs": outputs}


def _fitted(kind: type[Conv], range_lr: float) -> dict[str, Any]:
    return state(run(kind, range_lr=range_lr))


@pytest.mark.filterwarnings(UNSYNCED)
@pytest.mark.parametrize(("kind", "range_lr"), [(Sharded, 0.05), (Layers, 0.0)])
def test_two_shards_are_quantized_as_one_process_quantizes_the_whole(kind, range_lr):
    """Both processes see the same images, so that their mean gradient is the gradient of one process, exactly."""
    (expected,) = run_distributed(_fitted, Conv, range_lr, world_size=1)
    assert len([name for name in expected if name.startswith("Place")]) == 14
    for found in run_distributed(_fitted, kind, range_lr):
        assert differing(found, expected) == []


def _resumed(folder: Path, range_lr: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """An uninterrupted run and one resumed from its middle, with other images on each rank."""
    settings = {"range_lr": range_lr, "same": False}
    whole = run(Sharded, Save(folder, [9, 16]), **settings)
    return state(whole), state(run(Sharded, ckpt_path=folder / "step=9.ckpt", **settings))


@pytest.mark.filterwarnings(UNSYNCED, CHECKPOINTS)
@pytest.mark.parametrize("range_lr", [0.0, 0.05])
def test_a_checkpoint_resumes_in_the_same_bits_and_loads_without_shards(tmp_path, range_lr):
    (first, again), (second, again_second) = run_distributed(_resumed, tmp_path, range_lr)
    assert differing(first, again) == []
    assert set(differing(second, again_second)) <= {"outputs"}  # statistics of BatchNorm: files hold the first rank's
    assert set(differing(first, second)) <= {"outputs"}
    alone = load_compressed(Conv, tmp_path / "step=16.ckpt").eval()
    assert differing(state(alone), first) == []


def _mixed(kind: type[Mixed]) -> tuple[dict[str, Any], set[torch.dtype]]:
    """What the run ends in, and what the quantizer of the first layer's input is given."""
    module, given = run(kind), set()
    quantizer = quantizers_of(module)[Place("net.1", "input")]
    quantize = quantizer.quantize
    quantizer.quantize = lambda x: quantize(x) if given.add(x.dtype) is None else x
    return state(module), given


@pytest.mark.filterwarnings(UNSYNCED)
@pytest.mark.parametrize("kind", [Mixed, MixedAround])
def test_quantizers_come_behind_the_casts_of_mixed_precision(kind):
    """The same places as without, and ranges that differ by no more than values rounded to bfloat16 make them."""
    (expected,) = run_distributed(_fitted, Dense, 0.0, world_size=1)
    for found, given in run_distributed(_mixed, kind):
        assert given == {torch.bfloat16}
        assert found.keys() == expected.keys()
        for name in (name for name in found if name.startswith("Place")):
            np.testing.assert_allclose(found[name], expected[name], rtol=2**-8, err_msg=name)
