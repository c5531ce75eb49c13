"""Latents in half of the memory: the values of bfloat16 stand for the weights, and nothing else changes."""

import lightning as L
import pytest
import torch
from torch import nn

from lightning_compress import DistillationCallback, PruningCallback, QATCallback, WeightSharingCallback
from lightning_compress.adapters import HalfLatents, additive_paths
from lightning_compress.distillation import Base, losses
from lightning_compress.schedules import Constant
from tests.support.runs import Randomness, Save, resumes, same, uninterrupted
from tests.support.toys import Adapted, LoRA, build, fit

FROZEN = [f"net.{index}.base.weight" for index in (0, 3, 9, 11)]
METHODS = {
    "4 bits": lambda: [QATCallback(4, activation_bits=None, schedule=Constant(), every_n_steps=3)],
    "zeros": lambda: [PruningCallback(0.5, schedule=Constant(), every_n_steps=3)],
    "16 values, half zero": lambda: [
        PruningCallback(0.5, schedule=Constant()),
        WeightSharingCallback(16, schedule=Constant(), every_n_steps=5),
    ],
}


def rounded(module: nn.Module) -> nn.Module:
    """The module with frozen weights that bfloat16 holds."""
    for path in additive_paths(module):
        path.parameter.data = path.parameter.bfloat16().float()
    return module


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_bfloat16_holds_train_as_before(method):
    one, other = rounded(build(kind=Adapted)), rounded(build(kind=Adapted))
    fit(one, *METHODS[method](), max_steps=12)
    fit(other, *METHODS[method](), HalfLatents(), max_steps=12)
    assert same(one, other)


def test_other_weights_are_rounded_first():
    one, other = rounded(build(kind=Adapted)), build(kind=Adapted)
    assert not same(one, other)
    fit(one, *METHODS["4 bits"](), max_steps=12)
    fit(other, *METHODS["4 bits"](), HalfLatents(), max_steps=12)
    assert same(one, other)


def test_latents_in_checkpoints_take_half(tmp_path):
    sizes = {}
    for name, more in (("whole", []), ("half", [HalfLatents()])):
        fit(build(kind=Adapted), *METHODS["zeros"](), *more, Save(tmp_path / name, [30]))
        latents = torch.load(tmp_path / name / "step=30.ckpt", weights_only=True)["latent_weights"]
        assert latents.keys() == set(FROZEN)
        sizes[name] = sum(latent.nbytes for latent in latents.values())
    assert sizes["half"] * 2 == sizes["whole"] > 0


def test_latents_that_would_be_rounded_at_a_resume_are_refused(tmp_path):
    fit(build(kind=Adapted), *METHODS["zeros"](), Save(tmp_path, [30]))
    with pytest.raises(ValueError, match="need latents that bfloat16 holds exactly, got others of 'net"):
        fit(build(kind=Adapted), *METHODS["zeros"](), HalfLatents(), ckpt_path=tmp_path / "step=30.ckpt")


def test_a_run_goes_on_without_the_callback_from_the_rounded_latents(tmp_path):
    def run(*callbacks, ckpt_path=None):
        fit(module := build(kind=Adapted), *METHODS["4 bits"](), Randomness(), *callbacks, ckpt_path=ckpt_path)
        return module

    whole = run(HalfLatents(), Save(tmp_path, [30]))
    assert same(run(ckpt_path=tmp_path / "step=30.ckpt"), whole)


def test_nothing_to_halve_is_refused():
    with pytest.raises(ValueError, match="need frozen weights .* for HalfLatents, got no weight with adapters"):
        fit(build(), *METHODS["zeros"](), HalfLatents())
    short = build(kind=Adapted)
    for name in FROZEN:
        short.get_parameter(name).data = short.get_parameter(name).data.bfloat16()
    with pytest.raises(ValueError, match="for HalfLatents, got in torch.bfloat16: remove it"):
        fit(short, *METHODS["zeros"](), HalfLatents())


def test_a_weight_that_thaws_is_trained_in_full_precision():
    class Thaw(L.Callback):
        def on_train_batch_start(self, trainer, module, *_):
            if trainer.global_step == 6:
                for parameter in module.parameters():
                    parameter.requires_grad = True

        def on_train_batch_end(self, trainer, module, *_):
            if trainer.global_step == 11:
                latents = trainer.callbacks[0]._run._latents.latents()
                self.dtypes = {latents[name].dtype for name in FROZEN}

    thaw = Thaw()
    fit(build(kind=Adapted), *METHODS["4 bits"](), HalfLatents(), thaw, max_steps=12)
    assert thaw.dtypes == {torch.float32}


@resumes
@pytest.mark.parametrize("method", ["4 bits", "zeros"])
def test_a_run_resumes_bit_identical(method, tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = build(kind=Adapted)
        fit(module, *METHODS[method](), HalfLatents(), Randomness(), *callbacks, ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, range(4, 36, 10))


def test_the_base_teaches_with_its_rounded_weights():
    one, other = rounded(build(kind=LoRA)), build(kind=LoRA)
    for module, more in ((one, []), (other, [HalfLatents()])):
        fit(module, DistillationCallback(Base(), losses=[losses.mse]), *METHODS["zeros"](), *more, max_steps=6)
    assert same(one, other)
