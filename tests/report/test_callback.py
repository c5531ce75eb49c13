import errno
import json
import sys
import warnings
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.tuner import Tuner
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_compress import PruningCallback, load_archive
from lightning_compress.archive import save_archive
from lightning_compress.distillation import EMA, DistillationCallback, DistillationModule
from lightning_compress.report import CompressionReport, read_report
from lightning_compress.schedules import Constant, Linear
from lightning_compress.timing import Latency
from tests.support.distributed import run_distributed
from tests.support.runs import Randomness, resumes, trainer
from tests.support.students import Student, loader, teacher
from tests.support.toys import Batches, Digits, build, digits, fit, held_out

pytestmark = pytest.mark.usefixtures("instant")
SLOW_START = Linear(0.4, 0.8)  # of 36 steps, 12 an epoch: the first epoch is dense


@pytest.fixture
def instant(monkeypatch):
    """Timing takes no time; how it is done has its own tests."""

    def measure(modules, example):
        return [Latency(0.2, 0.1, 2.0, "cpu") for _ in modules]

    monkeypatch.setattr("lightning_compress.report.measures.bench.measure_latencies", measure)


class Plain(Digits):
    """Without batch normalization."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.net[1], self.net[4] = nn.Identity(), nn.Identity()


def report(path):
    return json.loads((path / "report.json").read_text())


def pruning(**options):
    return PruningCallback(0.9, **({"schedule": SLOW_START, "every_n_steps": 3} | options))


@pytest.mark.parametrize("first", [True, False], ids=["report first", "report last"])
@pytest.mark.parametrize("averaging", [[], [EMAWeightAveraging(decay=0.9)]], ids=["", "EMA"])
def test_it_reports_what_is_left_after_all_callbacks_have_settled(first, averaging, tmp_path):
    reporting = [CompressionReport(tmp_path)]
    others = [pruning(), *averaging]
    module, dense = build(), build()
    fit(module, *(reporting + others if first else others + reporting))
    values = report(tmp_path)
    for when, net in (("before", dense), ("after", module)):
        assert values["totals"][when]["nonzeros"] == sum(int((p != 0).sum()) for p in net.parameters())
        for layer in values[when]["layers"]:
            array = net.get_parameter(layer["name"]).detach().numpy()
            assert layer["distinct"] == len(np.unique(array))
        assert values[when]["macs"]["total"] == 64 * 8 * 9 + 16 * 16 * 8 * 9 + 64 * 32 + 320
    stored = load_archive(tmp_path / "model.lcz")
    assert stored.keys() == module.state_dict().keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in module.state_dict().items())
    assert values["after"]["archive_bytes"] == (tmp_path / "model.lcz").stat().st_size
    assert (tmp_path / "pictures" / "zeros.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "pictures" / "bytes.svg").read_text().startswith("<?xml")
    assert "cannot make this runtime faster" in (tmp_path / "report.md").read_text()


def validated(module):
    return trainer().validate(module, held_out(), verbose=False)[0]


@pytest.mark.parametrize("sanity", [0, 1])
def test_metrics_before_are_those_of_a_trained_model_as_it_comes_in(sanity, tmp_path):
    module = build()
    fit(module, max_epochs=1)
    dense = validated(module)
    run = fit(module, CompressionReport(tmp_path), pruning(), num_sanity_val_steps=sanity)
    values = report(tmp_path)
    assert values["metrics_before"] == dense
    assert values["metrics_after"] == validated(module)
    assert run.num_sanity_val_steps == sanity
    assert "the model as it came into fit" in (tmp_path / "report.md").read_text()


def test_a_model_without_normalization_that_is_compressed_at_once_was_trained_before(tmp_path):
    module = build(kind=Plain)
    dense = validated(module)
    fit(module, pruning(schedule=Constant()), CompressionReport(tmp_path))
    assert report(tmp_path)["metrics_before"] == dense


def test_a_model_that_is_trained_from_random_weights_has_no_metrics_before(tmp_path):
    """Those of a validation between are of a model that is trained by half."""
    fit(build(), pruning(), CompressionReport(tmp_path))
    values = report(tmp_path)
    assert values["metrics_before"] == {}
    assert values["totals"]["before"]["sparsity"] < 0.1 < 0.8 < values["totals"]["after"]["sparsity"]
    assert "CompressionReport(baseline={'val_acc': 0.9})" in (tmp_path / "report.md").read_text()


def test_a_baseline_stands_before_and_a_loss_against_it_stands_first(tmp_path):
    fit(build(), pruning(), CompressionReport(tmp_path, baseline={"val_acc": 0.999, "val_loss": 9.0}))
    values = report(tmp_path)
    after = values["metrics_after"]["val_acc"]
    assert values["metrics_before"] == {"val_acc": 0.999, "val_loss": 9.0}
    assert values["headlines"][0] == f"LOSS: val_acc fell from 0.9990 to {after:.4f}."
    first = (tmp_path / "report.md").read_text().split("\n\n")[1]
    assert first.startswith("- LOSS: val_acc fell")
    assert "- KEPT: val_loss went from 9.0000" in first


class Mute(Digits):
    """Logs nothing in the sanity check."""

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            super().validation_step(batch, batch_idx)


def test_a_baseline_that_no_validation_logs_is_refused_by_the_sanity_check(tmp_path):
    module = build()
    before = module.net[9].weight.clone()
    with pytest.raises(ValueError, match=r"need baseline .* got 'val_ac' where it logs .*; did you mean 'val_acc'"):
        fit(module, CompressionReport(tmp_path, baseline={"val_ac": 0.9, "val_loss": 1.0}), num_sanity_val_steps=1)
    assert torch.equal(module.net[9].weight, before)


@pytest.mark.parametrize("options", [{"num_sanity_val_steps": 0}, {"num_sanity_val_steps": 1}], ids=["none", "mute"])
def test_without_a_telling_sanity_check_the_first_validation_warns(options, tmp_path):
    with pytest.warns(UserWarning, match="need baseline .* got 'auc' where it logs .*: name one of these") as told:
        fit(build(kind=Mute), CompressionReport(tmp_path, baseline={"auc": 0.9}), max_epochs=2, **options)
    assert len([one for one in told if "need baseline" in str(one.message)]) == 1


def test_a_baseline_without_validation_is_refused(tmp_path):
    module = build()
    with pytest.raises(ValueError, match="need a validation to compare with baseline, got none: pass val_dataloaders"):
        fit(module, CompressionReport(tmp_path, baseline={"val_acc": 0.9}), limit_val_batches=0)


def test_a_baseline_is_a_dense_run(tmp_path):
    fit(build(), CompressionReport(tmp_path / "dense"), max_epochs=1)
    dense = report(tmp_path / "dense")["metrics_after"]
    fit(build(), pruning(), CompressionReport(tmp_path / "pruned", baseline=tmp_path / "dense"))
    assert report(tmp_path / "pruned")["metrics_before"] == dense
    assert f"those of the run in {tmp_path / 'dense'}" in (tmp_path / "pruned" / "report.md").read_text()
    assert CompressionReport(baseline=str(tmp_path / "dense" / "report.json"))._dense.metrics == dense
    with pytest.raises(
        ValueError, match="need baseline as a folder with one report.json, got .* with 2: name the file"
    ):
        CompressionReport(baseline=tmp_path)
    with pytest.raises(FileNotFoundError, match="need baseline as metrics or the path of a report, got .*no such file"):
        CompressionReport(baseline=tmp_path / "none")
    with pytest.raises(TypeError, match="need baseline as metrics by name, or as the path of a report, got 0.9"):
        CompressionReport(baseline=0.9)


def test_the_result_is_the_report(tmp_path):
    reporting = CompressionReport(tmp_path)
    assert reporting.result is None
    fit(build(), pruning(), reporting)
    result = reporting.result
    assert result == read_report(tmp_path / "report.json") == read_report(result.path)
    assert result.to_dict() == report(tmp_path)
    assert result.configuration["PruningCallback"].startswith("PruningCallback(sparsity=0.9")
    assert result.versions["torch"] == torch.__version__
    assert repr(result).splitlines()[-1] == f"the whole report is in {tmp_path}"
    frame = result.to_pandas().set_index("name")
    assert frame.loc["net.9.weight", "parameters_after"] == 2048
    assert frame.loc["net.9.weight", "sparsity_after"] > 0.8
    assert result.pictures == ("bytes", "metrics", "latencies", "zeros")


def test_a_baseline_is_a_number_for_every_name():
    with pytest.raises(TypeError, match=r"need baseline\['val_acc'\] as a number, got '0.9'"):
        CompressionReport(baseline={"val_acc": "0.9"})
    with pytest.raises(ValueError, match=r"need baseline\['val_acc'\] as a finite number, got inf"):
        CompressionReport(baseline={"val_acc": float("inf")})
    with pytest.raises(TypeError, match="need baseline with the names of metrics, got 1: write"):
        CompressionReport(baseline={1: 0.9})
    with pytest.raises(ValueError, match="need baseline with a metric or more, got none: .* or leave it out"):
        CompressionReport(baseline={})


def test_a_dead_layer_stands_first(tmp_path):
    module = build()
    with torch.no_grad():
        module.net[11].weight.mul_(1e-6)
    with pytest.warns(UserWarning, match="passes no signal"):
        fit(module, PruningCallback(0.9, floor=0.0, schedule=Constant()), CompressionReport(tmp_path), max_epochs=1)
    assert report(tmp_path)["headlines"][0] == (
        "LOSS: every weight of net.11.weight is zero, so nothing of the input passes there."
    )


@pytest.mark.filterwarnings("ignore:PruningCallback. the run ended")
def test_a_run_that_ended_too_early_is_said_first(tmp_path):
    stop = L.Callback()
    stop.on_train_epoch_end = lambda trainer, pl_module: setattr(trainer, "should_stop", trainer.current_epoch == 1)
    fit(build(), pruning(), CompressionReport(tmp_path), stop)
    assert report(tmp_path)["headlines"][0].startswith("LOSS: the run ended before the schedule of PruningCallback, at")


def test_a_file_that_failed_its_check_is_said_first(tmp_path, monkeypatch):
    def check(self, module, example, path):
        raise ValueError("need outputs within 1e-4, got 0.3")

    monkeypatch.setattr("lightning_compress.deploy.writers.programs.Program.check", check)
    with pytest.raises(ValueError, match="within 1e-4"):
        fit(build(), CompressionReport(tmp_path, formats=[".lcz", ".pt2"]), max_epochs=1)
    assert report(tmp_path)["headlines"][0] == "LOSS: model.pt2 was not written: need outputs within 1e-4, got 0.3"
    assert not (tmp_path / "model.pt2").exists()


def test_training_is_bit_identical_with_and_without_it(tmp_path):
    alone, watched = build(), build()
    fit(alone, pruning())
    fit(watched, CompressionReport(tmp_path), pruning())
    for name, tensor in alone.state_dict().items():
        assert torch.equal(tensor, watched.state_dict()[name])


@resumes
def test_a_resumed_run_remembers_the_dense_model(tmp_path):
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=30, save_top_k=-1)
    fit(build(), CompressionReport(tmp_path / "whole"), pruning(), Randomness(), saving)
    resumed = CompressionReport(tmp_path / "resumed")
    fit(build(), resumed, pruning(), Randomness(), ckpt_path=tmp_path / "step=30.ckpt")
    whole, resumed = report(tmp_path / "whole"), report(tmp_path / "resumed")
    assert [moment["step"] for moment in whole["history"]] == [12, 24, 36]
    assert [moment["methods"]["PruningCallback"]["strength"] for moment in whole["history"]][::2] == [0.0, 1.0]
    for key in ("before", "after", "metrics_before", "metrics_after", "steps", "history"):
        assert resumed[key] == whole[key], key
    assert resumed["latencies"] is None  # the dense model is gone
    assert "not measured: resumed run" in (tmp_path / "resumed" / "report.md").read_text()


def test_a_second_fit_starts_afresh(tmp_path):
    module, reporting = build(), CompressionReport(tmp_path)
    fit(module, reporting, pruning())
    fit(module, reporting)
    values = report(tmp_path)
    assert values["totals"]["before"]["sparsity"] > 0.8
    assert values["methods"] == {}


def test_it_writes_beside_the_log(tmp_path):
    logger = CSVLogger(tmp_path, name="digits")
    fit(build(), CompressionReport(), logger=logger, max_epochs=1)
    written = {path.name for path in (tmp_path / "digits" / "version_0").iterdir()}
    assert {"report.md", "report.json", "model.lcz"} <= written


def test_every_run_has_a_folder_without_a_logger(tmp_path):
    for number, most in enumerate((0.5, 0.9)):
        fit(
            build(),
            CompressionReport(),
            PruningCallback(most, schedule=Constant()),
            default_root_dir=tmp_path,
            max_epochs=1,
        )
        folder = tmp_path / "compression_reports" / f"version_{number}"
        assert report(folder)["totals"]["after"]["sparsity"] == pytest.approx(most, abs=0.03)
    assert report(folder.with_name("version_0"))["totals"]["after"]["sparsity"] == pytest.approx(0.5, abs=0.03)


class Tracker(Logger):
    """A logger with a project and names of runs, as Weights & Biases and MLflow are; it has no ``log_dir``."""

    def __init__(self, folder, version):
        super().__init__()
        self.folder, self._version = folder, version

    name = "project"
    version = property(lambda self: self._version)
    save_dir = property(lambda self: self.folder)

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass


def test_every_run_has_a_folder_with_a_tracker(tmp_path):
    for run in ("a1", "b2"):
        fit(build(), CompressionReport(), logger=Tracker(tmp_path, run), max_epochs=1)
    folders = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("report.json")}
    assert folders == {"project/a1", "project/b2"}


def test_a_second_fit_with_one_logger_leaves_the_first_report(tmp_path):
    logger = CSVLogger(tmp_path, name="digits", version=0)
    for most in (0.5, 0.9):
        fit(build(), CompressionReport(), PruningCallback(most, schedule=Constant()), logger=logger, max_epochs=1)
    found = sorted(report(path.parent)["totals"]["after"]["sparsity"] for path in tmp_path.rglob("report.json"))
    assert found == pytest.approx([0.5, 0.9], abs=0.03)


@pytest.mark.parametrize("named", [True, False])
def test_a_development_run_writes_nothing_and_checks_the_formats(named, tmp_path, monkeypatch, caplog):
    reporting = CompressionReport(tmp_path / "named" if named else None)
    with caplog.at_level("INFO"):
        fit(build(), reporting, pruning(), default_root_dir=tmp_path, fast_dev_run=1)
    assert list(tmp_path.iterdir()) == []
    assert "the report leaves no files of a fast_dev_run: " in caplog.text
    assert " are in " not in caplog.text

    def damage(state, path, *_, **__):
        save_archive({name: -tensor for name, tensor in state.items()}, path)

    monkeypatch.setattr("lightning_compress.deploy.writers.archive.save_archive", damage)
    with pytest.raises(ValueError, match=r"need model.lcz to hold the state dict bit for bit"):
        fit(build(), reporting, default_root_dir=tmp_path, fast_dev_run=1)


def test_a_tuner_writes_nothing(tmp_path):
    images, labels = digits()
    batches = DataLoader(TensorDataset(images[:384], labels[:384]), batch_size=32)
    run = trainer(CompressionReport(), default_root_dir=tmp_path)
    Tuner(run).lr_find(build(), batches, held_out(), num_training=5, update_attr=False)
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    fit(build(), CompressionReport(tmp_path), max_epochs=1)
    earlier = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    write = Path.write_text

    def half(path, text, **options):
        write(path, text[: len(text) // 2], **options)
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="no space left"):
        fit(build(), CompressionReport(tmp_path), pruning(), max_epochs=1)
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert left.keys() == earlier.keys()
    assert left["report.md"] == earlier["report.md"]


def test_it_prints_markdown_where_there_is_no_terminal(tmp_path, capsys):
    fit(build(), CompressionReport(tmp_path), max_epochs=1)
    assert (tmp_path / "report.md").read_text() in capsys.readouterr().out


def test_it_draws_tables_in_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    fit(build(), CompressionReport(tmp_path), max_epochs=1)
    printed = capsys.readouterr().out
    assert "net.11.weight" in printed
    assert "| ---" not in printed


class WithArray(Digits):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.example_input_array = torch.zeros(4, 1, 8, 8)


@pytest.mark.parametrize(
    ("module", "example", "inputs"),
    [
        (Digits, None, "1 x 1 x 8 x 8"),
        (WithArray, None, "4 x 1 x 8 x 8"),
        (WithArray, torch.zeros(3, 1, 8, 8), "3 x 1 x 8 x 8"),
        (Digits, (torch.zeros(2, 1, 12, 12),), "2 x 1 x 12 x 12"),
        (Digits, {"images": torch.zeros(2, 1, 8, 8)}, "2 x 1 x 8 x 8"),
    ],
)
def test_the_example(module, example, inputs, tmp_path):
    fit(build(kind=module), CompressionReport(tmp_path, example_input=example), max_epochs=1)
    values = report(tmp_path)
    assert values["before"]["macs"]["inputs"] == values["after"]["macs"]["inputs"] == inputs


class Keywords(Digits):
    """Takes two arguments: no tensor of a batch alone is an example."""

    def forward(self, images, scale):
        return self.net(images * scale)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0], 1.0), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0], 1.0), batch[1]))


def test_without_an_example_the_rest_is_reported(tmp_path):
    fit(build(kind=Keywords), CompressionReport(tmp_path), max_epochs=1)
    assert report(tmp_path)["after"]["macs"] is None
    assert "need a batch that holds the input of Keywords.forward" in (tmp_path / "report.md").read_text()


def test_a_format_that_lacks_its_example_is_refused_before_the_first_step(tmp_path):
    module, dense = build(kind=Keywords), build()
    with pytest.raises(ValueError, match=r"need example_input to write .pt2, got none: .*Keywords.forward"):
        fit(module, CompressionReport(tmp_path, formats=[".pt2"]), max_epochs=1)
    torch.testing.assert_close(module.net[9].weight, dense.net[9].weight, rtol=0, atol=0)


def test_a_module_that_cannot_be_copied_is_not_timed(tmp_path):
    module = build()
    module.kept = module.net[9].weight * 2  # with a graph behind it, as the weight of torch.nn.utils.weight_norm
    fit(module, CompressionReport(tmp_path), pruning(), max_epochs=2)
    assert report(tmp_path)["after"]["macs"]["total"] > 0
    assert report(tmp_path)["latencies"] is None
    page = (tmp_path / "report.md").read_text()
    assert "| latency | not measured | not measured |" in page
    assert page.count("Missing latency: no copy of the module: RuntimeError") == page.count("RuntimeError") == 1


def test_a_wrong_example_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"need an example input that Digits.forward takes, got \(1, 3, 8, 8\), which"):
        fit(build(), CompressionReport(tmp_path, example_input=torch.zeros(1, 3, 8, 8)))


def test_the_dense_model_stays_itself_where_the_module_is_compiled_as_a_whole(tmp_path, monkeypatch):
    class Plain(Digits):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

    outputs, image = [], torch.rand(1, 1, 8, 8)

    def measure(modules, example):
        outputs.extend(module.eval()(image) for module in modules)
        return [Latency(0.2, 0.1, 2.0, "cpu") for _ in modules]

    monkeypatch.setattr("lightning_compress.report.measures.bench.measure_latencies", measure)
    module, dense = build(kind=Plain), build(kind=Plain).eval()
    fit(torch.compile(module, backend="eager"), CompressionReport(tmp_path), pruning())
    assert torch.equal(outputs[0], dense(image))
    assert torch.equal(outputs[1], module.eval()(image))


def test_a_missing_extra_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    module = build()
    before = module.net[9].weight.clone()
    with pytest.raises(ImportError, match=r"need onnxscript .*lightning-compress\[onnx\]"):
        fit(module, CompressionReport(tmp_path, formats=[".onnx"]))
    assert torch.equal(module.net[9].weight, before)


def test_a_folder_that_cannot_be_made_is_refused_before_training(tmp_path):
    (tmp_path / "file").touch()
    module = build()
    before = module.net[9].weight.clone()
    with pytest.raises(NotADirectoryError, match="file/run"):
        fit(module, CompressionReport(tmp_path / "file" / "run"))
    assert torch.equal(module.net[9].weight, before)


@pytest.mark.parametrize(
    ("name", "error"),
    [("pictures/cat.png", FileExistsError), ("pictures", NotADirectoryError), ("model.lcz/file", IsADirectoryError)],
)
def test_a_users_file_in_the_place_of_a_folder_or_a_file_is_refused_before_training(name, error, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    module = build()
    before = module.net[9].weight.clone()
    with pytest.raises(error, match=rf"need path .*got '.*{name.split('/')[0]}', which"):
        fit(module, CompressionReport(tmp_path))
    assert torch.equal(module.net[9].weight, before)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("columns", [40, 80])
def test_a_narrow_terminal_cuts_no_number_off(columns, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    fit(build(), CompressionReport(tmp_path), pruning(), max_epochs=1)
    shown = capsys.readouterr().out
    assert "Layers" in shown
    sizes = {f"{report(tmp_path)[when]['archive_bytes']:,}" for when in ("before", "after")}
    assert sizes <= set(shown.split())


def test_any_callback_adds_rows(tmp_path):
    class Told(L.Callback):
        def __init__(self, key):
            self.key = key

        @property
        def state_key(self):
            return self.key

        def report(self):
            return {"key": self.key}

    fit(build(), CompressionReport(tmp_path), Told("a"), Told("b"), pruning(), max_epochs=1)
    methods = report(tmp_path)["methods"]
    assert methods["Told"] == {"key": "a"}
    assert methods["Told 2"] == {"key": "b"}
    assert methods["PruningCallback"] | {"method": ""} == {"method": "", "weights": 3592, "strength": 1.0}
    assert "| Told 2 | key | b |" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize("kind", [DistillationCallback, DistillationModule])
def test_a_teacher_has_rows_and_a_headline(kind, tmp_path):
    student, large = Student(), teacher()
    module, callbacks = (student, [kind(large)]) if kind is DistillationCallback else (kind(student, large), [])
    run = trainer(*callbacks, CompressionReport(tmp_path), max_epochs=1)
    run.fit(module, loader(), loader())
    found = report(tmp_path)["methods"]
    assert found[kind.__name__] == {
        "teacher": "Net",
        "teacher parameters": 60 + 12 + 21,  # convolution, normalization, head
        "teacher state dict, bytes": 4 * (93 + 12) + 8,  # and the statistics, and an integer
    }
    text = (tmp_path / "report.md").read_text()
    assert "The teacher, Net, has 93 parameters: 1.48x as many." in text  # 93 / (40 + 8 + 15)
    assert f"| {kind.__name__} | teacher | Net |" in text


def test_a_teacher_without_a_size_is_named():
    assert DistillationCallback(EMA(0.5)).report() == {"teacher": "EMA(decay=0.5)"}


def test_layers_that_are_exchanged_during_the_run(tmp_path):
    class Narrow(L.Callback):
        def on_train_end(self, trainer, pl_module):
            pl_module.net[9], pl_module.net[11] = nn.Linear(64, 16), nn.Linear(16, 10, bias=False)

    fit(build(), Narrow(), CompressionReport(tmp_path), max_epochs=1)
    page = (tmp_path / "report.md").read_text()
    assert "| net.9.weight | 32 x 64 → 16 x 64 | 2,048 → 1,024 |" in page
    assert "| net.11.bias | 10 → none |" in page
    assert report(tmp_path)["after"]["macs"]["layers"]["net.9"] == 1024


def test_validation_alone_writes_nothing(tmp_path):
    trainer(CompressionReport(tmp_path / "none")).validate(build(), held_out(), verbose=False)
    assert not (tmp_path / "none").exists()


def _ranks(folder):
    module = build()
    reporting = CompressionReport(folder)
    trainer(reporting, pruning(), strategy="ddp", devices=2, max_epochs=2).fit(module, Batches(), held_out())
    return module.state_dict()["net.9.weight"].numpy(), reporting._before is None


def test_of_several_processes_the_first_writes(tmp_path):
    (first, left), (_, right) = run_distributed(_ranks, tmp_path)
    assert (left, right) == (False, True)
    assert (load_archive(tmp_path / "model.lcz")["net.9.weight"].numpy() == first).all()


def _ranks_with_a_deployment(folder):
    """Fit, and validate as scripts do: a collective that the first process alone enters in between hangs, or fails."""
    module = build()
    reporting = CompressionReport(folder, formats=[".lcz", ".onnx", ".pt2"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "It is recommended to use `self.log")
        run = trainer(reporting, pruning(), strategy="ddp", devices=2, max_epochs=1)
        run.fit(module, Batches(), held_out())
        return run.validate(module, held_out(), verbose=False)[0]["val_acc"]


def test_of_several_processes_the_first_measures_files_alone(tmp_path):
    one, other = run_distributed(_ranks_with_a_deployment, tmp_path, timeout=150)
    assert one == other
    assert [found["runtime"] for found in report(tmp_path)["deployments"]] == ["ONNX Runtime", "OpenVINO"]
    assert all(found["agreement"] > 0.9 for found in report(tmp_path)["deployments"])


@pytest.mark.parametrize("first", [True, False], ids=["report first", "report last"])
@pytest.mark.parametrize("methods", [[], [pruning()]], ids=["dense", "pruned"])
def test_metrics_are_those_of_the_model_that_averaging_leaves(methods, first, tmp_path):
    """StochasticWeightAveraging swaps the weights after the last validation."""
    module, reporting = build(), [CompressionReport(tmp_path)]
    others = [*methods, StochasticWeightAveraging(0.5, swa_epoch_start=0.5)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Swapping scheduler|SWA is currently only supported")
        run = fit(module, *(reporting + others if first else others + reporting), max_epochs=4)
    found = reporting[0].result
    assert found.metrics_after == pytest.approx(validated(module))
    assert {name: float(run.callback_metrics[name]) for name in found.metrics_after} == found.metrics_after
    assert not found.changed
    assert read_report(found.path) == found


@pytest.mark.parametrize("averaging", [[], [EMAWeightAveraging(decay=0.9)]], ids=["", "EMA"])
def test_a_model_that_was_validated_is_not_validated_again(averaging, tmp_path):
    reporting = CompressionReport(tmp_path)
    fit(build(), pruning(), reporting, *averaging, max_epochs=3)
    assert [moment.step for moment in reporting.result.history] == [12, 24, 36]
    assert not reporting.result.changed


class Late(L.Callback):
    """Writes weights when nothing can be validated any more."""

    def on_fit_end(self, trainer, pl_module):
        with torch.no_grad():
            pl_module.net[11].bias.add_(1.0)


def test_weights_that_change_after_the_run_are_told(tmp_path):
    fit(build(), CompressionReport(tmp_path), Late(), max_epochs=1)
    assert report(tmp_path)["changed"]
    assert "- LOSS: the last validation saw other weights than those that fit has left, so the metrics" in told(
        tmp_path
    )


def told(path):
    return (path / "report.md").read_text()


def test_metrics_of_an_earlier_model_are_told(tmp_path):
    run = fit(build(), pruning(), CompressionReport(tmp_path / "a"), max_steps=14)  # validated after 12
    run.save_checkpoint(tmp_path / "14.ckpt")
    values = report(tmp_path / "a")
    assert values["unvalidated"] == 2
    assert "LOSS: the last validation was 2 steps before the end of the run" in " ".join(values["headlines"])
    resumed = [pruning(), CompressionReport(tmp_path / "b")]
    fit(build(), *resumed, max_steps=16, ckpt_path=tmp_path / "14.ckpt")
    assert report(tmp_path / "b")["unvalidated"] == 4
    fit(build(), pruning(), CompressionReport(tmp_path / "c"))
    assert report(tmp_path / "c")["unvalidated"] == 0
