"""A grid of a user's own trains, resumes, is stored in checkpoints and archives, and is refused where it must be."""

import copy
import math
from dataclasses import dataclass, field

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_compress import export, load_archive, load_compressed
from lightning_compress.lowering.modules import lower
from lightning_compress.quantization import AffineGrid, Grid, PerChannel, PerGroup, PerTensor, QATCallback
from lightning_compress.quantization.weights import grids_of
from lightning_compress.report.measures.profiles import profile
from lightning_compress.schedules import Linear
from tests.support.classifiers import Dense, fit, loader, trainer
from tests.support.promises import on_grids
from tests.support.runs import Save, resumes, uninterrupted


@dataclass(frozen=True, eq=False)
class PowerGrid(Grid):
    """Zero and seven powers of two of each sign, below ``2^largest``."""

    largest: torch.Tensor

    @property
    def bits(self):
        return 4

    def nearest(self, rows):
        exponents = rows.abs().log2().round()
        values = rows.sign() * torch.exp2(exponents.clamp(self.largest - 6, self.largest))
        return torch.where(exponents < self.largest - 7, 0.0, values)


def powers(rows, bits):
    return PowerGrid(rows.abs().amax(1, keepdim=True).clamp(min=1e-30).log2().round())


def of_powers(weight):
    return all(value == 0 or math.log2(abs(value)).is_integer() for value in weight.flatten().tolist())


def qat(**settings):
    return QATCallback(4, activation_bits=None, scale=powers, **settings)


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(16)])
def test_it_trains(granularity):
    module = Dense()
    fit(module, qat(granularity=granularity))
    assert {type(grid) for grid in grids_of(module).values()} == {PowerGrid}
    assert on_grids(module)
    assert of_powers(module.net[1].weight)


@resumes
@pytest.mark.parametrize("activation_bits", [None, 8])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path, activation_bits):
    def run(*callbacks, ckpt_path=None):
        torch.manual_seed(0)
        module = Dense()
        callback = QATCallback(4, activation_bits=activation_bits, scale=powers, schedule=Linear(0.1, 0.7))
        fit(module, callback, *callbacks, ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, (2, 7, 11))


@pytest.mark.parametrize("weights_only", [True, False])
def test_a_checkpoint_carries_it(tmp_path, weights_only):
    module, checkpoint = Dense(), ModelCheckpoint(tmp_path, save_weights_only=weights_only)
    run = fit(module, qat(), checkpoint)
    path = checkpoint.best_model_path
    loaded = load_compressed(Dense, path, grids=(PowerGrid,))
    assert {type(grid) for grid in grids_of(loaded).values()} == {PowerGrid}
    assert on_grids(loaded)
    logged = float(run.callback_metrics["val_loss"])
    assert trainer().validate(loaded, loader(2), verbose=False)[0]["val_loss"] == logged
    again = trainer(qat(), copy.deepcopy(checkpoint))
    assert again.validate(Dense(), loader(2), path, verbose=False)[0]["val_loss"] == logged


def test_a_kind_that_is_not_given_is_named(tmp_path):
    fit(Dense(), qat(), Save(tmp_path, [8]))
    message = (
        r"need the class of the grid 'PowerGrid' of 'net.1.weight', got only AffineGrid, BinaryGrid: .*grids=\(Pow"
    )
    with pytest.raises(ValueError, match=message):
        load_compressed(Dense, tmp_path / "step=8.ckpt")
    with pytest.raises(ValueError, match=message):
        trainer(QATCallback(4)).fit(Dense(), loader(), loader(2), ckpt_path=tmp_path / "step=8.ckpt")
    with pytest.raises(TypeError, match="need grids as subclasses of Grid, got 'PowerGrid'"):
        load_compressed(Dense, tmp_path / "step=8.ckpt", grids=("PowerGrid",))


def test_it_is_written_to_an_archive_alone(tmp_path):
    module, calls = Dense(), []
    fit(module, qat())
    module.register_forward_hook(lambda *_: calls.append(1))
    loaded = load_archive(export(module, tmp_path / "m.lcz"))
    assert all(torch.equal(loaded[name], value) for name, value in module.state_dict().items())
    for suffix in (".onnx", ".pt2"):
        with pytest.raises(
            ValueError, match=r"need weights on affine grids .* got 'net.1.weight' on a PowerGrid: .*'model.lcz'"
        ):
            export(module, tmp_path / f"m{suffix}", torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="need weights on affine grids"):
        lower(module, (torch.zeros(2, 1, 8, 8),))
    assert len(calls) == 6  # each export tries the example and compares two answers before it refuses


def test_a_report_knows_its_bits():
    module = Dense()
    fit(module, qat())
    layer = next(layer for layer in profile(module).layers if layer.name == "net.1.weight")
    assert (layer.bits, layer.scales) == (4, 32)


def test_a_part_keeps_its_rows():
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1.0], [10.0], [100.0], [0.1]]
    )
    grid = powers(weight, 4)
    part = grid.part(PerChannel(), weight.shape, lambda whole: whole[1:3, ::2])
    assert torch.equal(part.project(weight[1:3, ::2]), grid.project(weight)[1:3, ::2])
    seen = PowerGrid(grid.largest, transposed=True)
    assert torch.equal(seen.project(weight.t()), grid.project(weight).t())
    part = seen.part(PerChannel(), weight.t().shape, lambda whole: whole[::2, 1:3])
    assert torch.equal(part.project(weight.t()[::2, 1:3]), grid.project(weight).t()[::2, 1:3])


class Undecorated(PowerGrid):
    def __init__(self, largest):
        super().__init__(largest)
        object.__setattr__(self, "cache", {})


@dataclass(frozen=True, eq=False)
class WithCode(PowerGrid):
    inverse: object = field(default=torch.log2)


@dataclass(frozen=True, eq=False)
class Halving(PowerGrid):
    def nearest(self, rows):
        return rows / 2


def same_name():
    @dataclass(frozen=True, eq=False)
    class AffineGrid(PowerGrid):
        pass

    return AffineGrid


@pytest.mark.parametrize(
    ("scale", "error", "message"),
    [
        (lambda rows, bits: rows, TypeError, "need scale to return a Grid, got tensor"),
        (
            lambda rows, bits: Undecorated(rows[:, :1]),
            TypeError,
            "need Undecorated as a dataclass, .* decorate it with",
        ),
        (lambda rows, bits: WithCode(rows[:, :1]), TypeError, "need the fields of WithCode as .* got inverse=<"),
        (
            lambda rows, bits: PowerGrid(rows.abs().max()),
            ValueError,
            r"need PowerGrid.largest of shape \(rows, n\) .* got \(\) for 2 rows",
        ),
        (lambda rows, bits: Halving(rows[:, :1]), ValueError, "need Halving.nearest as a projection"),
        (lambda rows, bits: same_name()(rows[:, :1]), TypeError, "got another AffineGrid: rename the class"),
    ],
)
def test_a_scale_that_breaks_the_rules_is_refused(scale, error, message):
    with pytest.raises(error, match=message):
        QATCallback(4, scale=scale)


def test_a_scale_returns_one_kind():
    def scale(rows, bits):
        grid = powers(rows, bits)
        return grid if rows.shape[1] != 64 else AffineGrid(torch.exp2(grid.largest) / 7, 0 * grid.largest, -7, 7)

    with pytest.raises(TypeError, match=r"need grids of one kind, PowerGrid, got a AffineGrid for 'net.1.weight'"):
        fit(Dense(), QATCallback(4, activation_bits=None, scale=scale))
