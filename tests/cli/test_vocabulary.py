"""Bare names in configs and on the command line stand for the dotted paths of this package."""

from argparse import ArgumentError

import lightning as L
import pytest
import yaml
from jsonargparse import ArgumentParser

from lightning_compress import pruning, quantization, schedules
from lightning_compress.cli.vocabulary import expanded, expanded_words
from lightning_compress.quantization import profiles


def arguments(text):
    (callback,) = expanded(yaml.safe_load(text))
    return callback["init_args"]


@pytest.mark.parametrize(
    ("callback", "argument", "name", "path"),
    [
        ("PruningCallback", "criterion", "taylor", "lightning_compress.pruning.criteria.taylor"),
        ("ChannelPruningCallback", "criterion", "taylor", "lightning_compress.channels.criteria.taylor"),
        ("QATCallback", "scale", "mse", "lightning_compress.quantization.scales.mse"),
        ("QATCallback", "observer", "mse", "lightning_compress.quantization.observers.mse"),
        ("WeightSharingCallback", "init", "plus_plus", "lightning_compress.sharing.initial_centers.plus_plus"),
        ("lightning_compress.PruningCallback", "criterion", "wanda", "lightning_compress.pruning.criteria.wanda"),
    ],
)
def test_functions(callback, argument, name, path):
    assert arguments(f"- {{class_path: {callback}, init_args: {{{argument}: {name}}}}}") == {argument: path}


def test_classes_with_and_without_arguments():
    text = "- {class_path: PruningCallback, init_args: {schedule: Cubic}}"
    whole = {"begin": 0.0, "until": 1.0}
    assert arguments(text) == {"schedule": {"class_path": "lightning_compress.schedules.Cubic", "init_args": whole}}
    text = "- {class_path: PruningCallback, init_args: {schedule: {class_path: Linear, init_args: {until: 0.5}}}}"
    linear = {"class_path": "lightning_compress.schedules.Linear", "init_args": {"begin": 0.0, "until": 0.5}}
    assert arguments(text) == {"schedule": linear}
    text = "- {class_path: PruningCallback, init_args: {pattern: Unstructured}}"
    assert arguments(text) == {"pattern": {"class_path": "lightning_compress.pruning.patterns.Unstructured"}}


def test_losses_within_terms_within_a_module():
    text = """
- class_path: DistillationModule
  init_args:
    student: {class_path: mine.Student, init_args: {kind: mse}}
    losses: [{loss: mse}, {loss: {class_path: SoftTargets, init_args: {temperature: 2.0}}}, cosine, SoftTargets]
"""
    found = arguments(text)
    assert found["student"]["init_args"] == {"kind": "mse"}  # the argument of a class that is not of this package
    first, second, third, fourth = found["losses"]
    assert first["loss"].startswith("lightning_compress.distillation.losses")
    assert second["loss"]["class_path"].endswith(".SoftTargets")
    assert second["loss"]["init_args"] == {"temperature": 2.0}
    assert third == "lightning_compress.distillation.losses.features.cosine"
    assert fourth["class_path"] == "lightning_compress.distillation.losses.logits.SoftTargets"
    assert fourth["init_args"] == {"temperature": 4.0}


@pytest.mark.parametrize(
    "value", ["mine.criteria.tailor", "layer", {"class_path": "mine.Ramp", "init_args": {"begin": 0.1}}], ids=str
)
def test_values_that_are_no_bare_names_stay(value):
    argument = {"layer": "scope"}.get(str(value), "schedule" if isinstance(value, dict) else "criterion")
    config = [{"class_path": "PruningCallback", "init_args": {argument: value}}, {"class_path": "mine.Callback"}]
    assert expanded(config) == config


def test_a_near_miss_is_named():
    with pytest.raises(ArgumentError, match=r"criterion as one of magnitude, .*, got 'tailor'; did you mean 'taylor'"):
        arguments("- {class_path: PruningCallback, init_args: {criterion: tailor}}")
    with pytest.raises(ArgumentError, match=r"need schedule as one of Constant, .*, got 'Cubik'; did you mean 'Cubic'"):
        arguments("- {class_path: PruningCallback, init_args: {schedule: {class_path: Cubik}}}")


def test_a_writer_is_named_and_a_suffix_stays():
    found = expanded(
        {"class_path": "CompressionReport", "init_args": {"formats": [{"class_path": "CompressedTensors"}]}}
    )
    (writer,) = found["init_args"]["formats"]
    assert writer["class_path"] == "lightning_compress.deploy.writers.compressed_tensors.CompressedTensors"
    for formats in (["onnx"], [".onnx"], "onnx"):  # the callback says what is wrong
        config = {"class_path": "CompressionReport", "init_args": {"formats": formats}}
        assert expanded(config) == config


def test_words_of_the_command_line():
    words = [
        "fit",
        "--trainer.callbacks+=PruningCallback",
        "--trainer.callbacks.criterion",
        "taylor",
        "--model.x",
        "mse",
    ]
    assert expanded_words(words) == [
        "fit",
        "--trainer.callbacks+=PruningCallback",
        "--trainer.callbacks.criterion",
        "lightning_compress.pruning.criteria.taylor",
        "--model.x",
        "mse",
    ]
    words = ["--trainer.callbacks=PruningCallback", "--trainer.callbacks.init_args.schedule=Cubic"]
    assert expanded_words(words)[1] == (
        '--trainer.callbacks.init_args.schedule={"class_path": "lightning_compress.schedules.Cubic", '
        '"init_args": {"begin": 0.0, "until": 1.0}}'
    )


HOMES = {"schedule": schedules, "granularity": quantization, "profile": profiles, "pattern": pruning}
CLASSES = [
    *[("QATCallback", {}, "profile", kind) for kind in ("OnnxRuntime", "OpenVINO", "TensorRT", "Mobile", "CoreML")],
    *[("QATCallback", {}, "granularity", kind) for kind in ("PerTensor", "PerChannel")],
    *[("PruningCallback", {}, "pattern", kind) for kind in ("Unstructured",)],
    *[("PruningCallback", {}, "schedule", kind) for kind in ("Constant", "Cosine", "Exponential", "Step")],
    *[("CompressionBudget", {"bytes": 20_000}, "schedule", kind) for kind in ("Cubic", "Linear")],
]


@pytest.mark.parametrize(("callback", "others", "argument", "kind"), CLASSES)
def test_every_class_of_an_argument_is_built(callback, others, argument, kind):
    """Parsers take a dataclass for a group of its own fields, and refuse its subclasses, if all its bases are such."""
    config = [{"class_path": callback, "init_args": {**others, argument: kind}}]
    parser = ArgumentParser()
    parser.add_argument("--callbacks", type=list[L.Callback])
    (built,) = parser.instantiate(parser.parse_object({"callbacks": expanded(config)})).callbacks
    assert type(getattr(built, argument)).__name__ == kind
    # With the defaults of the class: parsers would keep those of the object that it replaces.
    home = HOMES[argument]
    assert getattr(built, argument) == getattr(home, kind)()
