import copy

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_compress import NM, PruningCallback
from lightning_compress.loading import load_compressed
from lightning_compress.quantization import BinarizationCallback, PerGroup, PerTensor, QATCallback, profiles, scales
from lightning_compress.quantization.weights import grids_of
from lightning_compress.schedules import Linear, Step
from lightning_compress.targets import select
from tests.support.classifiers import Classifier, Dense, fit
from tests.support.promises import on_grids
from tests.support.runs import resumes, uninterrupted


class Watch(Callback):
    def __init__(self) -> None:
        self.seen: list[bool] = []

    def on_validation_epoch_end(self, trainer, module) -> None:
        self.seen.append(on_grids(module))


@pytest.mark.parametrize("scale", [scales.absmax, scales.minmax, scales.mse, scales.power_of_two])
@pytest.mark.parametrize("granularity", [PerTensor(), PerGroup(16)])
def test_every_weight_is_on_its_grid_from_the_begin_on(scale, granularity):
    module, watch = Classifier(), Watch()
    fit(module, QATCallback(4, activation_bits=None, scale=scale, granularity=granularity), watch)
    assert watch.seen == [True, True]
    assert on_grids(module)
    assert len(module.net[1].weight.unique()) <= 16 * len(grids_of(module)["net.1.weight"].scale)
    assert set(module.state_dict()) == set(Classifier().state_dict())


def test_before_the_begin_training_is_what_it_is_without():
    plain, module = Classifier(), Classifier()
    module.load_state_dict(plain.state_dict())
    fit(plain, max_epochs=1)
    fit(module, QATCallback(activation_bits=None, schedule=Step(at=1.0)), max_epochs=1)
    grid = scales.absmax(plain.net[1].weight.detach(), 8)
    assert torch.equal(module.net[1].weight, grid.project(plain.net[1].weight.detach()))


def test_a_ramp_draws_the_weights_towards_the_grid():
    module = Classifier()
    callback = QATCallback(3, activation_bits=None, schedule=Linear(0.0, 0.9), every_n_steps=1)
    distances = []

    class Distance(Callback):
        def on_train_batch_end(self, trainer, module, *args) -> None:
            grid = grids_of(module).get("net.1.weight")
            if grid is not None:
                weight = module.net[1].weight.detach()
                distances.append(float((weight - grid.project(weight)).norm()))

    fit(module, callback, Distance())
    assert distances[2] > 2 * distances[-4] > distances[-1] == 0
    assert on_grids(module)


def test_binary_weights_have_two_values_per_channel():
    module, watch = Classifier(), Watch()
    fit(module, BinarizationCallback(), watch)
    assert watch.seen == [True, True]
    assert all(len(row.unique()) == 2 for row in module.net[1].weight)
    assert torch.equal(-module.net[1].weight.amin(1), module.net[1].weight.amax(1))


def test_binary_gradients_stop_beyond_one():
    callback = BinarizationCallback()
    gradient = torch.ones(3)
    callback.backward_({"w": gradient}, {"w": torch.tensor([-1.5, 0.5, 1.0])})
    assert gradient.tolist() == [0, 1, 1]


@pytest.mark.parametrize("quantize", [QATCallback(4, activation_bits=None), BinarizationCallback()])
def test_pruned_weights_stay_zero(quantize):
    module = Classifier()
    fit(module, quantize, PruningCallback(pattern=NM(2, 4)))
    for weight in (module.net[1].weight, module.net[3].weight):
        assert (torch.count_nonzero(weight.view(-1, 4), dim=1) <= 2).all()
    assert on_grids(module)


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("callback", [QATCallback(4, activation_bits=None), BinarizationCallback()])
def test_a_checkpoint_carries_the_grids(tmp_path, callback, weights_only):
    module = Dense()
    checkpoint = ModelCheckpoint(tmp_path, save_weights_only=weights_only)
    fit(module, copy.deepcopy(callback), checkpoint)
    loaded = load_compressed(Dense, checkpoint.best_model_path)
    assert type(loaded) is Dense
    assert on_grids(loaded)
    assert torch.equal(loaded.net[1].weight, module.net[1].weight)
    plain = Dense.load_from_checkpoint(checkpoint.best_model_path)
    assert torch.equal(plain.net[1].weight, module.net[1].weight)
    assert not grids_of(plain)


@resumes
@pytest.mark.parametrize("callback", [QATCallback(4, activation_bits=None, scale=scales.mse), BinarizationCallback()])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path, callback):
    def run(*callbacks, ckpt_path=None):
        torch.manual_seed(0)
        module = Dense()
        fit(module, copy.deepcopy(callback), *callbacks, ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, (2, 7, 11))


def test_two_callbacks_share_a_model():
    module = Classifier()
    fit(
        module,
        QATCallback(8, activation_bits=None, include=("net.1",)),
        QATCallback(2, activation_bits=None, include=("net.3",)),
    )
    assert on_grids(module)
    assert len(module.net[3].weight[0].unique()) <= 3 < len(module.net[1].weight[0].unique())


def test_half_precision_weights_are_on_the_grid():
    module = Classifier()
    fit(module, QATCallback(4, activation_bits=None), precision="bf16-true")
    grid = grids_of(module)["net.1.weight"]
    weight = module.net[1].weight.detach()
    assert torch.equal(grid.project(weight.float()).bfloat16(), weight)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"weight_bits": 1}, ValueError, "need 2 <= weight_bits <= 8, got weight_bits=1"),
        ({"weight_bits": 9}, ValueError, "need 2 <= weight_bits <= 8, got weight_bits=9"),
        ({"weight_bits": 8.0}, TypeError, "need weight_bits as an integer, got 8.0"),
        ({"weight_bits": "8"}, TypeError, "need weight_bits as an integer, got '8'"),
        ({"weight_bits": True}, TypeError, "need weight_bits as an integer, got True"),
        ({"weight_bits": -1}, ValueError, "need weight_bits >= 0, got weight_bits=-1"),
        ({"activation_bits": 3}, ValueError, "need 4 <= activation_bits <= 8, got activation_bits=3"),
        ({"activation_bits": "8"}, TypeError, "need activation_bits as an integer, got '8'"),
        ({"granularity": PerTensor}, TypeError, r"got the class PerTensor: write PerTensor\(...\)"),
        ({"granularity": 32}, TypeError, "need granularity as a function or an object, got 32"),
        (
            {"granularity": scales.mse},
            TypeError,
            "need granularity as a Granularity, such as PerChannel.*got <fun",
        ),
        ({"scale": "absmax"}, TypeError, "need scale as a function or an object, got 'absmax'"),
        ({"scale": PerTensor}, TypeError, "need scale as an object, got the class PerTensor"),
        ({"observer": "minmax"}, TypeError, "need observer as a function or an object, got 'minmax'"),
        ({"decay": 1}, ValueError, "need 0 <= decay < 1, got decay=1"),
        ({"decay": "0.9"}, TypeError, "need decay as a number, got '0.9'"),
        ({"range_lr": -0.1}, ValueError, "need 0 <= range_lr < 1, got range_lr=-0.1"),
        ({"range_lr": None}, TypeError, "need range_lr as a number, got None"),
        ({"freeze_ranges_at": 2}, ValueError, "need 0 <= freeze_ranges_at <= 1, got freeze_ranges_at=2"),
        ({"freeze_norms_at": -1}, ValueError, "need 0 <= freeze_norms_at <= 1, got freeze_norms_at=-1"),
        ({"freeze_norms_at": True}, TypeError, "need freeze_norms_at as a number, got True"),
        ({"profile": "TensorRT"}, TypeError, "need profile as a function or an object, got 'TensorRT'"),
        ({"profile": scales.mse}, TypeError, "need profile as a Profile, such as profiles.OnnxRuntime"),
        (
            {"profile": profiles.TensorRT(), "scale": scales.minmax},
            ValueError,
            "need a symmetric scale for profile TensorRT, got minmax.*use scales.absmax",
        ),
        ({"every_n_steps": 2.5}, TypeError, "need every_n_steps as an integer, got 2.5"),
    ],
)
def test_bad_arguments_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        QATCallback(**settings)


def test_a_weight_that_groups_do_not_fill_is_left_alone_and_said_so():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    granularity = PerGroup(8)
    selection = QATCallback(4, activation_bits=None, granularity=granularity).select(net)
    assert [target.name for target in selection] == ["1.weight"]
    assert selection.skipped["0.weight"] == "its shape does not fit PerGroup(size=8)"
    named = QATCallback(4, activation_bits=None, granularity=granularity, include=("0", "1"))
    assert [target.name for target in named.select(net)] == ["0.weight", "1.weight"]  # check refuses the first


def test_groups_that_a_cut_leaves_incomplete_are_refused_before_there_are_grids():
    net = nn.Sequential(nn.Conv1d(4, 2, 3))
    callback = QATCallback(4, activation_bits=None, granularity=PerGroup(4))
    callback.begin(select(net))
    with pytest.raises(ValueError, match=r"need a number of inputs that 4 divides .* got '0.weight' with 9"):
        callback.replace({"0.weight": nn.Parameter(net[0].weight[:, :3])}, lambda name, tensor: tensor[:, :3])
