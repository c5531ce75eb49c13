import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_compress.archive import load_archive, save_archive
from lightning_compress.deploy import export
from lightning_compress.quantization import QATCallback
from tests.support.classifiers import Conv, fit
from tests.support.runs import trainer
from tests.support.toys import Batches, build

IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Two(nn.Module):
    """Two arguments, two outputs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, one, two):
        return {"sum": self.first(one + two), "difference": self.second(one - two)}


def expected(module, *inputs, **keywords):
    module.eval()
    with torch.no_grad():
        return module(*inputs, **keywords)


def test_archive_holds_every_bit(tmp_path):
    module = build()
    with torch.no_grad():
        module.net[0].weight.view(-1)[:3] = torch.tensor([-0.0, torch.nan, torch.inf])
    assert export(module, tmp_path / "m.lcz") == tmp_path / "m.lcz"
    stored = load_archive(tmp_path / "m.lcz")
    for name, tensor in module.state_dict().items():
        assert stored[name].numpy().tobytes() == tensor.numpy().tobytes()


def test_archive_holds_what_is_conjugate_or_negated_only_when_read(tmp_path):
    module = nn.Module()
    module.register_buffer("conjugate", torch.tensor([1 + 2j, 3 - 4j]).conj())
    module.register_buffer("negated", torch.tensor([1 + 2j, 3 - 4j]).conj().imag)
    stored = load_archive(export(module, tmp_path / "m.lcz"))
    assert stored["conjugate"].tolist() == [1 - 2j, 3 + 4j]
    assert stored["negated"].tolist() == [-2.0, 4.0]


def test_onnx_runs_in_onnx_runtime_at_any_batch_size(tmp_path):
    module = build()
    path = export(module, str(tmp_path / "m.onnx"), IMAGES[:1])
    assert module.training
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert model.opset_import[0].version == 21
    session = onnxruntime.InferenceSession(path)
    (entry,) = session.get_inputs()
    for count in (1, 3):
        (output,) = session.run(None, {entry.name: IMAGES[:count].numpy()})
        np.testing.assert_allclose(output, expected(module, IMAGES[:count]).numpy(), atol=1e-5)


def test_onnx_carries_no_notes_for_debugging(tmp_path):
    graph = onnx.load(export(build(), tmp_path / "m.onnx", IMAGES)).graph
    assert graph.node
    assert not any(list(node.metadata_props) or node.doc_string for node in graph.node)


def test_onnx_is_written_without_a_word(tmp_path, caplog):
    export(build(), tmp_path / "m.onnx", IMAGES)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_program_runs_at_any_batch_size(tmp_path):
    module = build()
    program = torch.export.load(export(module, tmp_path / "m.pt2", IMAGES)).module()
    for count in (1, 2):
        torch.testing.assert_close(program(IMAGES[:count]), expected(module, IMAGES[:count]))


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".pt2", tuple), (".pt2", list), (".onnx", lambda pair: {"one": pair[0], "two": pair[1]})]
)
def test_arguments_and_several_outputs(suffix, kind, tmp_path):
    pair = torch.rand(2, 5, 4).unbind()
    assert export(Two(), tmp_path / f"m{suffix}", kind(pair)).stat().st_size > 0


class Loose(nn.Module):
    """Hands on whatever comes, as a LightningModule around another model does."""

    def __init__(self):
        super().__init__()
        self.inner = Scaled()

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, one, double=False, two=None):
        return self.layer(one - (0 if two is None else two)) * (2 if double else 1)


@pytest.mark.parametrize("kind", [Scaled, Loose])
@pytest.mark.parametrize(
    "order", [("one",), ("two", "one"), ("double", "two", "one"), pytest.param(None, id="positional")]
)
def test_arguments_may_come_in_any_form_that_forward_takes(order, kind, tmp_path):
    module, values = kind(), {"one": torch.rand(5, 4), "two": torch.rand(5, 4), "double": True}
    example = (values["one"],) if order is None else {name: values[name] for name in order}
    export(module, tmp_path / "m.onnx", example)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    tensors = [(name, values[name][:3]) for name in order or ("one",) if name != "double"]
    feed = {entry.name: tensor.numpy() for entry, (_, tensor) in zip(session.get_inputs(), tensors, strict=True)}
    want = expected(module, **dict(tensors), **({"double": True} if "double" in (order or ()) else {}))
    np.testing.assert_allclose(session.run(None, feed)[0], want.numpy(), atol=1e-6)
    assert "forward" not in vars(module)


def test_the_module_is_left_as_it_is(tmp_path):
    module = build()
    module.net[8].eval()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes, random = [part.training for part in module.modules()], torch.get_rng_state()
    export(module, tmp_path / "m.pt2", IMAGES)
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("name", ["m.bin", "m", "m.lcz.gz"])
def test_an_unknown_suffix_is_refused(name, tmp_path):
    with pytest.raises(
        ValueError, match=r"path with a suffix out of .lcz, .mlpackage, .onnx, .pt2, .pte, .safetensors, .tflite, got '"
    ):
        export(nn.Linear(2, 2), tmp_path / name)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_missing_example_is_refused(suffix, tmp_path):
    with pytest.raises(ValueError, match=r"need example_input to write .*, got None: pass export\("):
        export(nn.Linear(2, 2), tmp_path / f"m{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_an_example_of_another_kind_is_refused(suffix, tmp_path):
    with pytest.raises(TypeError, match="need example_input as a tensor, a tuple of .*, got ndarray"):
        export(nn.Linear(2, 2), tmp_path / f"m{suffix}", np.zeros((3, 2), dtype=np.float32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["onnxruntime", "onnxscript", "onnx"])
def test_onnx_without_its_extra_names_it(missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"need {missing} to write .onnx: pip install 'lightning-compress\[onnx\]'"):
        export(nn.Linear(2, 2), tmp_path / "m.onnx", torch.ones(1, 2))


def test_a_program_that_computes_something_else_is_refused(tmp_path, monkeypatch):
    save = torch.export.save

    def damage(program, path):
        program.state_dict["bias"] = nn.Parameter(program.state_dict["bias"] + 0.01)
        save(program, path)

    monkeypatch.setattr(torch.export, "save", damage)
    with pytest.raises(ValueError, match=r"need m.pt2 to compute the same .* within 0.0001, got a difference of 0.01"):
        export(nn.Linear(2, 2), tmp_path / "m.pt2", torch.zeros(1, 2))


def test_an_archive_that_holds_something_else_is_refused(tmp_path, monkeypatch):
    def damage(state, path, *_, **__):
        save_archive({name: -tensor for name, tensor in state.items()}, path)

    monkeypatch.setattr("lightning_compress.deploy.writers.archive.save_archive", damage)
    with pytest.raises(ValueError, match="need m.lcz to hold the state dict bit for bit, got another 'weight'"):
        export(nn.Linear(2, 2), Path(tmp_path / "m.lcz"))


@pytest.mark.parametrize(
    ("dtype", "suffix", "error"),
    [
        (torch.bfloat16, ".onnx", r"need a quantized module in float32 to write .onnx, got one in torch.bfloat16"),
        (torch.float64, ".onnx", "need a module in float32 or half precision to lower to integers, got one in float64"),
        (torch.float64, ".pt2", "need a module in float32 or half precision to lower to integers, got one in float64"),
    ],
)
def test_integers_of_another_precision_are_refused(dtype, suffix, error, tmp_path):
    module = Conv()
    fit(module, QATCallback())
    with pytest.raises(ValueError, match=error):
        export(module.to(dtype), tmp_path / f"m{suffix}", torch.randn(2, 1, 8, 8, dtype=dtype))


@pytest.mark.parametrize("bits", [8, None])
def test_integers_are_written_in_half_precision(bits, tmp_path):
    """Layers whose input no quantizer gives compute in the precision that comes; rows of a table have its own."""

    class Words(L.LightningModule):
        def __init__(self):
            super().__init__()
            layers = [nn.Embedding(17, 8), nn.LayerNorm(8), nn.Flatten(), nn.Linear(512, 10), nn.ReLU()]
            self.net = nn.Sequential(*layers, nn.Linear(10, 10))

        def forward(self, words):
            return self.net(words)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self((batch[0] * 16).long().flatten(1)), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-3)

    module = Words()
    trainer(QATCallback(8, activation_bits=bits), precision="bf16-true", max_epochs=1).fit(module, Batches())
    export(module, tmp_path / "m.pt2", torch.randint(0, 17, (4, 64)))


@dataclass
class Answer:
    logits: Tensor


def test_a_dataclass_that_torch_export_knows_is_written(tmp_path):
    class Answering(nn.Linear):
        def forward(self, x):
            return Answer(super().forward(x))

    torch.export.register_dataclass(Answer, serialized_type_name="Answer")
    for name in ("m.onnx", "m.pt2"):
        export(Answering(4, 2), tmp_path / name, torch.randn(3, 4))


def test_half_precision_has_its_own_tolerance(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8)).bfloat16()
    export(net, tmp_path / "m.pt2", torch.randn(4, 64).bfloat16())


@pytest.mark.parametrize("name", ["m.lcz", "m.onnx", "m.pt2"])
def test_what_torch_compile_gave_is_written_as_what_it_was_given(name, tmp_path):
    module = build()
    plain = export(module, tmp_path / name, IMAGES).read_bytes()
    export(torch.compile(module, backend="eager"), tmp_path / name, IMAGES)
    if name.endswith(".lcz"):
        assert (tmp_path / name).read_bytes() == plain


class Forward(nn.Linear):
    """A layer of four inputs and two outputs, and a ``forward`` that computes something from them."""

    def __init__(self, function):
        super().__init__(4, 2)
        self.function = function

    def forward(self, x):
        return self.function(super().forward(x))


X = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
PLACE = rf"in line \d+ of {Path(__file__).name}: "


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".pte", ".tflite"])
@pytest.mark.parametrize(
    ("function", "example", "error"),
    [
        (lambda y: y, X[0], r"batch as first dimension .* got \(4,\), which runs, .* x.unsqueeze\(0\)"),
        (lambda y: y.reshape(3, 2), X, r"any batch size, got \(3, 4\), which runs, .* as x.shape\[0\]"),
        (
            lambda y: y if y.sum() > 0 else -y,
            X,
            f"values of tensors, got Forward.forward, .* {PLACE}.* torch.where",
        ),
        (
            lambda y: torch.from_numpy(y.numpy()),
            X,
            f"a forward that torch.export follows, .* {PLACE}keep to op",
        ),
        (
            lambda y: {"y": y, "task": "a"},
            X,
            r"returns tensors .*, got \{y: \(3, 2\), task: str\} from Forward",
        ),
        (lambda y: y, X[:0], r"need example_input with one sample or more, got \(0, 4\)"),
        (lambda y: y + torch.rand(2), X, "a second run of Forward.forward to compute the same .* draws random numbers"),
        (
            lambda y: y.sum(1).sub(100).log(),
            X,
            "got NaN from Forward.forward: its tensors and example_input are finite",
        ),
        (lambda y: y, X * torch.nan, "got NaN from Forward.forward: pass an example_input without NaN"),
    ],
)
def test_a_forward_that_no_file_can_hold_is_refused_in_one_sentence(function, example, error, suffix, tmp_path):
    with pytest.raises(ValueError, match=error) as refused:
        export(Forward(function), tmp_path / f"m{suffix}", example)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_refusal_has_the_error_of_torch_as_its_cause(tmp_path):
    with pytest.raises(ValueError, match="torch.where") as refused:
        export(Forward(lambda y: y if y.sum() > 0 else -y), tmp_path / "m.pt2", X)
    assert type(refused.value.__cause__).__name__ == "GuardOnDataDependentSymNode"


def test_weights_that_are_not_finite_are_named(tmp_path):
    module = build()
    with torch.no_grad():
        module.net[0].weight.view(-1)[0] = torch.nan
    with pytest.raises(ValueError, match=r"got NaN from .*forward: these tensors .* not finite: net.0.weight; load a"):
        export(module, tmp_path / "m.onnx", IMAGES)
    assert export(module, tmp_path / "m.lcz").exists()


def test_a_module_without_forward_is_refused(tmp_path):
    class Bare(L.LightningModule):
        pass

    for kind in (Bare, nn.Module):
        with pytest.raises(
            ValueError, match=rf"need a module with a forward, got {kind.__name__}, which has none: def"
        ):
            export(kind(), tmp_path / "m.onnx", X)


class Numbered(nn.Module):
    def forward(self, x):
        return x * x.max().item()


@pytest.mark.parametrize("suffix", [".pte", ".tflite"])
def test_a_number_that_forward_takes_from_a_tensor_is_refused_with_its_line(suffix, tmp_path):
    line = Numbered.forward.__code__.co_firstlineno + 1
    told = f"got Numbered.forward, which takes one from them, in line {line} of test_export.py: keep a number as a"
    with pytest.raises(ValueError, match=told):
        export(Numbered(), tmp_path / f"m{suffix}", torch.rand(2, 3))
    assert list(tmp_path.iterdir()) == []


def test_an_operation_that_onnx_lacks_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(
        ValueError, match=r"got torch\.ops\.prims\.bessel_j0\.default, DispatchError: .*: write \.pt2$"
    ) as refused:
        export(Forward(lambda y: torch.special.bessel_j0(y)), tmp_path / "m.onnx", X)
    assert "\n" not in str(refused.value)


def test_outputs_may_be_none_and_numbers_in_a_program(tmp_path):
    for suffix in (".onnx", ".pt2"):
        export(Forward(lambda y: {"y": y, "nothing": None}), tmp_path / f"m{suffix}", X)
    for suffix in (".pte", ".tflite"):
        with pytest.raises(ValueError, match=r"returns tensors .*, got \{y: \(3, 2\), nothing: NoneType\} from"):
            export(Forward(lambda y: {"y": y, "nothing": None}), tmp_path / f"m{suffix}", X)
    export(Forward(lambda y: {"y": y, "one": 1}), tmp_path / "m.pt2", X)


def test_a_suffix_in_capitals_is_one_letter_case_away(tmp_path):
    with pytest.raises(ValueError, match=r"need path with a suffix out of .*, got '.ONNX'; did you mean '.onnx'"):
        export(nn.Linear(2, 2), tmp_path / "m.ONNX", torch.ones(1, 2))


class Sized(nn.Module):
    def forward(self, x):
        return x + torch.zeros(len(x), 1)


def test_a_forward_that_is_bound_to_one_batch_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a forward that takes any batch size, .* take the size as x\.shape\[0\]"):
        export(Sized(), tmp_path / "m.pt2", torch.zeros(2, 3))


def test_an_operation_that_onnx_runtime_lacks_is_refused_and_leaves_no_file(tmp_path):
    """It has no convolution in float64."""
    net = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU()).double()
    with pytest.raises(
        ValueError, match=r"need operations that ONNX Runtime computes .*Conv.*export module\.float\(\)"
    ):
        export(net, tmp_path / "m.onnx", torch.randn(2, 1, 8).double())
    assert list(tmp_path.iterdir()) == []
    assert export(net.float(), tmp_path / "m.onnx", torch.randn(2, 1, 8)).exists()


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".pte", ".tflite"])
def test_other_libraries_warn_of_nothing(suffix, tmp_path):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        export(nn.Sequential(nn.Linear(4, 3)), tmp_path / f"m{suffix}", torch.zeros(1, 4))
    assert [str(one.message) for one in warned if "LeafSpec" in str(one.message)] == []
