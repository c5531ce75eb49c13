"""Packages of Core ML: its own program, read from the file, is the reference for what the weights are."""

import gc
import json
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from lightning_compress import CompressionReport, PruningCallback, QATCallback, WeightSharingCallback, export
from lightning_compress.deploy.formats import size_on_disk
from lightning_compress.deploy.runtimes.silence import silenced
from lightning_compress.deploy.writers.coreml import CoreMLPackage, smallest_form
from lightning_compress.quantization import PerGroup, profiles
from tests.support.classifiers import Classifier, Conv, fit, loader

with silenced():  # it imports other packages, which warn
    import coremltools
    from coremltools.converters.mil.frontend.milproto import load

pytestmark = pytest.mark.filterwarnings("ignore:Core ML runs on Apple machines alone")
IMAGES = next(iter(loader()))[0]


class Wide(Classifier):
    def __init__(self):
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))


def operations(path):
    with silenced():
        model = coremltools.models.MLModel(str(path), skip_model_load=True)
        specification = model.get_spec()
        program = load.load(specification, specification.specificationVersion, model.weights_dir)
    return [one for function in program.functions.values() for one in function.operations]


def kinds(path):
    return Counter(one.op_type for one in operations(path))


def weights(path):
    """The values of the weights of linear layers, in their order."""
    found = [one.inputs["weight"] for one in operations(path) if one.op_type == "linear"]
    return [one.val if one.op.op_type == "const" else one.op.materialized_val_inference() for one in found]


@pytest.mark.parametrize(
    ("callbacks", "form", "smaller"),
    [
        ([], "const", 1),
        ([QATCallback(profile=profiles.CoreML())], "constexpr_blockwise_shift_scale", 2),
        ([QATCallback(4, activation_bits=None)], "constexpr_blockwise_shift_scale", 3),
        ([WeightSharingCallback(8)], "constexpr_lut_to_dense", 3),
        ([PruningCallback(0.9)], "constexpr_sparse_to_dense", 2),
        ([PruningCallback(0.9), WeightSharingCallback(8)], "constexpr_lut_to_sparse", 3),
    ],
    ids=["float", "8 bits", "4 bits", "shared", "sparse", "sparse and shared"],
)
def test_weights_are_those_of_the_module_in_the_smallest_form(callbacks, form, smaller, tmp_path):
    module = Wide()
    fit(module, *callbacks)
    path = export(module.eval(), tmp_path / "m.mlpackage", IMAGES)
    assert kinds(path)[form]
    for weight, layer in zip(weights(path), (module.net[1], module.net[3]), strict=True):
        np.testing.assert_array_equal(weight, layer.weight.detach().numpy())
    whole = size_on_disk(export(Wide(), tmp_path / "float.mlpackage", IMAGES))
    assert size_on_disk(path) * smaller <= whole
    assert {file.name for file in path.iterdir()} == {"Manifest.json", "Data"}


def test_groups_are_floats_beside_integers(tmp_path):
    module = Wide()
    channels = QATCallback(activation_bits=None, include=("net.1.weight",))
    fit(module, channels, QATCallback(activation_bits=None, granularity=PerGroup(16), include=("net.3.weight",)))
    path = export(module.eval(), tmp_path / "m.mlpackage", IMAGES)
    assert kinds(path)["constexpr_blockwise_shift_scale"] == 1
    for weight, layer in zip(weights(path), (module.net[1], module.net[3]), strict=True):
        np.testing.assert_array_equal(weight, layer.weight.detach().numpy())


def test_integers_are_quantized_before_each_layer(tmp_path):
    module = Conv()
    fit(module, QATCallback(profile=profiles.CoreML()))
    found = operations(export(module.eval(), tmp_path / "m.mlpackage", IMAGES))
    layers = [one for one in found if one.op_type in ("conv", "linear")]
    assert len(layers) == 10
    for layer in layers:
        assert layer.inputs["weight"].op.op_type == "constexpr_blockwise_shift_scale"
        read = layer.inputs["x"].op
        while read.op_type in ("reduce_mean", "squeeze", "reshape"):
            read = read.inputs["x"].op
        assert read.op_type == "dequantize"
    assert {one.inputs["output_dtype"].val for one in found if one.op_type == "quantize"} == {"int8"}


def test_shared_values_stay_few_beside_batch_normalization(tmp_path):
    module = Conv()
    fit(module, WeightSharingCallback(8))
    path = export(module.eval(), tmp_path / "m.mlpackage", IMAGES)
    assert kinds(path)["constexpr_lut_to_dense"] >= 8
    tables = [one.inputs["lut"].val for one in operations(path) if one.op_type == "constexpr_lut_to_dense"]
    assert all(table.size == 8 for table in tables)


def test_the_smallest_of_all_zeros_are_zeros_alone():
    values = np.zeros(1000, np.float32)
    values[:50] = np.arange(50) % 4 + 1
    assert smallest_form(values) == "palette, sparse"
    values[0] = 1e-35
    assert smallest_form(values) == "palette"


def test_batches_and_half_precision(tmp_path):
    path = export(Wide(), tmp_path / "m.mlpackage", IMAGES, writer=CoreMLPackage(largest_batch=16, half_precision=True))
    with silenced():
        description = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec().description
    batch = description.input[0].type.multiArrayType.shapeRange.sizeRanges[0]
    assert (batch.lowerBound, batch.upperBound) == (1, 16)
    assert {weight.dtype for weight in weights(path)} == {np.dtype("float16")}


def test_a_form_that_changes_a_weight_leaves_no_package(tmp_path, monkeypatch):
    module = Wide()
    fit(module, WeightSharingCallback(8))
    found = "lightning_compress.deploy.writers.coreml._constants"
    monkeypatch.setattr(found, lambda model: {name: np.ones((64, 64)) for name in ("p_net_1_weight",)})
    monkeypatch.setattr("lightning_compress.deploy.writers.coreml._compressed", palettized)
    with pytest.raises(ValueError, match=r"need m.mlpackage to hold the weights exactly, got others in p_net_1_weight"):
        export(module.eval(), tmp_path / "m.mlpackage", IMAGES)
    assert not list(tmp_path.iterdir())


def palettized(model):
    from coremltools.optimize import coreml

    config = coreml.OpPalettizerConfig(mode="unique", weight_threshold=1)
    return coreml.palettize_weights(model, coreml.OptimizationConfig(op_name_configs={"p_net_1_weight": config}))


def test_it_says_that_nothing_was_run(tmp_path):
    with pytest.warns(UserWarning, match=r"Core ML runs on Apple machines alone: m.mlpackage was converted"):
        export(Wide(), tmp_path / "m.mlpackage", IMAGES)


def test_what_core_ml_does_not_take_is_refused(tmp_path):
    class Sorted(Wide):
        def forward(self, x):
            return torch.linalg.svd(super().forward(x)[:, None])[1]

    with pytest.raises(
        ValueError, match=r"need operations that Core ML computes to write m.mlpackage, got .*write .on"
    ):
        export(Sorted(), tmp_path / "m.mlpackage", IMAGES)
    gc.collect()  # a folder that the conversion left would warn now
    module = Wide()
    fit(module, QATCallback())
    with pytest.raises(ValueError, match="need symmetric ranges of activations for CoreML, got others at .*CoreML"):
        export(module, tmp_path / "m.mlpackage", IMAGES)
    with pytest.raises(ValueError, match="need largest_batch >= 1, got largest_batch=0"):
        CoreMLPackage(largest_batch=0)
    with pytest.raises(TypeError, match="need half_precision as True or False, got 1"):
        CoreMLPackage(half_precision=1)
    (tmp_path / "m.mlpackage").mkdir()
    (tmp_path / "m.mlpackage" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="which holds 'notes.txt'"):
        export(Wide(), tmp_path / "m.mlpackage", IMAGES)


def test_a_report_lists_the_package(tmp_path):
    fit(Wide(), CompressionReport(tmp_path, formats=[".mlpackage"]))
    assert size_on_disk(tmp_path / "model.mlpackage") > 10_000
    files = json.loads((tmp_path / "report.json").read_text())["files"]
    assert files["model.mlpackage"] == size_on_disk(tmp_path / "model.mlpackage")
