"""Wrong uses, as newcomers make them: each is answered in one line that names the argument, and says what was got."""

import re
import sys
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn

import lightning_compress
from lightning_compress import (
    NM,
    BinarizationCallback,
    Block,
    ChannelPruningCallback,
    CompressionBudget,
    CompressionReport,
    DistillationCallback,
    DistillationModule,
    LowRankCallback,
    PerGroup,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
    compare,
    export,
    freeze,
    load_archive,
    load_compressed,
    plan,
    remove_zero_channels,
    sensitivity,
    split_low_rank,
)
from lightning_compress.archive import archived_bytes, inspect_archive, save_archive
from lightning_compress.cli import main
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.deploy.writers.onnx import Onnx
from lightning_compress.deploy.writers.programs import Program
from lightning_compress.distillation import (
    EMA,
    Cache,
    Ensemble,
    Item,
    LeastSquares,
    Term,
    from_checkpoint,
    initialize,
    losses,
)
from lightning_compress.quantization import observers, profiles
from lightning_compress.report import read_report
from lightning_compress.report.folders import run_folder
from lightning_compress.schedules import Constant, Cosine, Cubic, Exponential, Linear, Step
from lightning_compress.search import Logged, Mean, OfOutputs, Scored
from lightning_compress.tying import tie
from tests.support.toys import Digits

VERSION = {"pytorch-lightning_version": L.__version__}
NET, IMAGES = nn.Linear(4, 4), torch.zeros(1, 1, 8, 8)
PRUNING = [PruningCallback(0.5)]


def nothing():
    """A function of no argument, where one with arguments is needed."""


def damaged(name):
    """The path of a file whose content is text."""
    with open(name, "w") as file:
        file.write("hello")
    return name


def of_torch(content):
    torch.save(content, "weights.ckpt")
    return "weights.ckpt"


def archive():
    save_archive(NET.state_dict(), "m.lcz")
    return "m.lcz"


AMOUNTS = [
    (lambda: PruningCallback("0.9"), "need sparsity as a number, got '0.9'$"),
    (lambda: PruningCallback(90), "need 0 < sparsity < 1, got sparsity=90$"),
    (lambda: PruningCallback(True), "need sparsity as a number, got True$"),
    (
        lambda: PruningCallback(torch.zeros(2, 2)),
        r"need sparsity as a number, got tensor\(\[\[0., 0.\], \[0., 0.\]\]\)$",
    ),
    (lambda: QATCallback("8"), "need weight_bits as an integer, got '8'$"),
    (lambda: QATCallback(32), "need 2 <= weight_bits <= 8, got weight_bits=32$"),
    (lambda: QATCallback(None), "need weight_bits as an integer, got None$"),
    (lambda: QATCallback(activation_bits=32), "need 4 <= activation_bits <= 8, got activation_bits=32$"),
    (lambda: WeightSharingCallback([16]), r"need clusters as an integer, got \[16\]$"),
    (lambda: WeightSharingCallback(0), "need clusters >= 2, got clusters=0$"),
    (lambda: LowRankCallback(64), "need 0 < parameters < 1, got parameters=64$"),
    (lambda: LowRankCallback(energy=95), "need 0 < energy < 1, got energy=95$"),
    (lambda: LowRankCallback("half"), "need parameters as a number, got 'half'$"),
    (lambda: ChannelPruningCallback("0.5"), "need macs as a number, got '0.5'$"),
    (lambda: ChannelPruningCallback(latency="2ms"), "need latency as a number, got '2ms'$"),
    (lambda: ChannelPruningCallback(channels=8), "need 0 < channels < 1, got channels=8$"),
    (lambda: CompressionBudget(bytes="100 kB"), "need bytes as an integer, got '100 kB'$"),
    (lambda: CompressionBudget(bytes=1e5), "need bytes as an integer, got 100000.0$"),
    (lambda: CompressionBudget(max_drop=-1), "need max_drop >= 0, got max_drop=-1$"),
    (lambda: PerGroup(32.0), "need size as an integer, got 32.0$"),
    (lambda: NM(4, 2), "need n < m, got n=4, m=2$"),
    (lambda: Block(4, 0), "need columns >= 1, got columns=0$"),
]
OPTIONS = [
    (lambda: PruningCallback(scope=["layer"]), r"need scope 'global' or 'layer', got scope=\['layer'\]$"),
    (lambda: PruningCallback(regrow="yes"), "need regrow as True or False, got 'yes'$"),
    (lambda: PruningCallback(floor="0.1"), "need floor as a number, got '0.1'$"),
    (lambda: PruningCallback(include=None), "need include as a sequence of patterns, got None$"),
    (lambda: LowRankCallback(split="no"), "need split as True or False, got 'no'$"),
    (lambda: ChannelPruningCallback(example_input="x"), "need example_input as a tensor, .*, got 'x'$"),
    (lambda: ChannelPruningCallback(remove="false"), "need remove as True or False, got 'false'$"),
    (lambda: ChannelPruningCallback(remove_blocks=1), "need remove_blocks as True or False, got 1$"),
    (lambda: ChannelPruningCallback(round_to=8.0), "need round_to as an integer, got 8.0$"),
    (lambda: WeightSharingCallback(scope="channel"), "need scope 'layer' or 'global', got scope='channel'$"),
    (lambda: QATCallback(freeze_ranges_at="end"), "need freeze_ranges_at as a number, got 'end'$"),
    (lambda: profiles.OnnxRuntime(round_branches="no"), "need round_branches as True or False, got 'no'$"),
    (lambda: CompressionBudget(max_drop=0.1, patience=2.5), "need patience as an integer, got 2.5$"),
    (lambda: CompressionBudget(max_drop=0.1, monitor=3), "need monitor as the name of a metric, got 3$"),
    (lambda: CompressionReport(3), "need dirpath as text or a path, got 3$"),
    (lambda: CompressionReport(formats=None), r"need formats as a list, got None: write \['.lcz'\]$"),
    (lambda: CompressionReport(formats=[".lcz", ".lcz"]), "need formats of different suffixes, got '.lcz' twice: both"),
    (lambda: CompressionReport(formats=[".onx"]), "need formats out of .*, got '.onx'; did you mean '.onnx'"),
    (lambda: CompressionReport(baseline={"val_acc": None}), r"need baseline\['val_acc'\] as a number, got None$"),
    (
        lambda: CompressionReport(baseline="gone.json"),
        "need baseline as metrics or the path .*, got 'gone.json': no such",
    ),
    (lambda: CompressionReport(example_input=3), "need example_input as a tensor, .*, got 3$"),
]
CODE = [
    (lambda: PruningCallback(criterion=None), "need criterion as a function, got None: leave criterion out for its"),
    (lambda: PruningCallback(pattern=None), "need pattern as a Pattern of pruning.patterns, got None: inherit from"),
    (lambda: PruningCallback(schedule=None), r"need schedule\(progress\) as a function, got None: leave schedule out"),
    (
        lambda: PruningCallback(schedule=nothing),
        r"need schedule\(progress\), got <function nothing .*>, which takes other",
    ),
    (lambda: PruningCallback(schedule=NM), r"need schedule as an object, got the class NM: write NM\(...\)$"),
    (lambda: BinarizationCallback(schedule=0.2), "need schedule as a function or an object, got 0.2: import it and"),
    (lambda: QATCallback(scale=None), r"need scale\(values, bits\) as a function, got None: leave scale out"),
    (lambda: QATCallback(scale=nothing), r"need scale\(values, bits\), got <function nothing .*, which takes other"),
    (lambda: QATCallback(observer=None), r"need observer\(values, bits\) as a function, got None: leave observer"),
    (lambda: QATCallback(observer=nothing), r"need observer\(values, bits\), got <function nothing .*, which takes"),
    (lambda: QATCallback(profile="cpu"), "need profile as a function or an object, got 'cpu': import it and pass it"),
    (lambda: QATCallback(profile=profiles.Mobile), r"need profile as an object, got the class Mobile: write Mobile\("),
    (lambda: WeightSharingCallback(init=None), r"need init\(values, clusters\) as a function, got None: leave init"),
    (
        lambda: WeightSharingCallback(init=nothing),
        r"need init\(values, clusters\), got <function nothing .*, which takes",
    ),
    (lambda: WeightSharingCallback(gradient=nothing), r"need gradient\(sums, sizes\), got <function nothing .*, which"),
    (
        lambda: ChannelPruningCallback(latency=0.5, runtime=None),
        r"need runtime\(module, example\) as a function, got None",
    ),
    (
        lambda: ChannelPruningCallback(latency=0.5, runtime=nothing),
        r"need runtime\(module, example\), got <function noth",
    ),
    (lambda: Cubic("0.1"), "need begin as a number, got '0.1'$"),
    (lambda: Linear(1, 10), "need 0 <= begin < until <= 1, got begin=1, until=10$"),
    (lambda: Cosine(0.1, None), "need until as a number, got None$"),
    (lambda: Step(100), "need 0 <= at <= 1, got at=100$"),
    (lambda: Exponential(rate="5"), "need rate as a number, got '5'$"),
    (lambda: Constant([1]), r"need value as a number, got \[1\]$"),
]
CONFLICTS = [
    (
        lambda: PruningCallback(0.9, pattern=NM(2, 4)),
        "need sparsity=0.5 for pattern=NM.*, got sparsity=0.9: leave sparsity",
    ),
    (lambda: LowRankCallback(0.5, energy=0.9), "need one of parameters and energy, got parameters=0.5 and energy=0.9$"),
    (lambda: ChannelPruningCallback(0.5, latency=0.5), "need one of macs, .* got macs=0.5 and latency=0.5$"),
    (lambda: CompressionBudget(), "need a wish, bytes, macs, latency or max_drop, got none: name the size"),
    (
        lambda: CompressionBudget(bytes=9, max_drop=0.1),
        "need one wish for the file, .*, got bytes=9 and max_drop=0.1: name the size",
    ),
    (lambda: CompressionBudget(bytes=9, patience=3), "need max_drop= .*, got patience=3 without it: leave it out$"),
]
SWITCHED_OFF = [
    (
        lambda: QATCallback(activation_bits=None, range_lr=0.05),
        "need activation_bits for range_lr, got range_lr=0.05 with activation_bits=None, where it has no effect: leave",
    ),
    (
        lambda: QATCallback(activation_bits=None, observer=observers.mse, decay=0.5),
        "need activation_bits for observer and decay, got observer=lightning_compress.quantization.observers.mse, d",
    ),
    (lambda: QATCallback(activation_bits=None, freeze_ranges_at=0.5), "need activation_bits for freeze_ranges_at, got"),
    (lambda: PruningCallback(floor=0.1, scope="layer"), "need a common threshold for floor, got floor=0.1 with scope="),
    (lambda: PruningCallback(floor=0.1, pattern=NM(2, 4)), "need a common threshold for .* with pattern=NM.*leave it"),
    (lambda: PruningCallback(decay=0.5), "need a criterion that reads gradients or inputs for decay, got decay=0.5 "),
    (lambda: ChannelPruningCallback(decay=0.5), "need a criterion that reads .* decay=0.5 with criterion=magnitude"),
    (
        lambda: ChannelPruningCallback(0.5, runtime=OnnxRuntime()),
        "need latency= to measure it in a runtime, .* with macs=0.5: leave runtime out",
    ),
    (lambda: ChannelPruningCallback(channels=0.5, remove_blocks=True), "need macs, .* with remove_blocks=True, got "),
    (
        lambda: CompressionBudget(max_drop=0.1, every_n_steps=9),
        "need bytes=, macs= .*, got every_n_steps=9 without: ",
    ),
]
TEACHERS = [
    (lambda: DistillationCallback("teacher.ckpt"), "need teacher as a module, .*, got 'teacher.ckpt': from_checkpoint"),
    (lambda: DistillationCallback(nn.Linear), r"need teacher as an object, got the class Linear: write Linear\(...\)$"),
    (lambda: DistillationCallback(NET, losses=["mse"]), "need loss as a function or an object, got 'mse': import it"),
    (
        lambda: DistillationCallback(NET, network=nn.Sequential(NET)),
        "need network as the name of a submodule, got Sequen",
    ),
    (lambda: DistillationCallback(NET, metrics=["acc"]), "need metrics of torchmetrics, got 'acc'$"),
    (lambda: DistillationCallback(NET, initialize={1: "0"}), "need initialize as names of layers, got 1 in it$"),
    (lambda: DistillationCallback(NET, task_weight=-1), "need task_weight >= 0, got task_weight=-1$"),
    (lambda: DistillationModule(NET, NET), "need student as a LightningModule that has no teacher yet, got Linear$"),
    (lambda: DistillationModule(Digits, NET), r"need student as an object, got the class Digits: write Digits\(...\)$"),
    (lambda: Term(losses.mse, student_layers=3), "need student_layers as a pattern of names, got 3$"),
    (lambda: Term(losses.mse, weight="1"), "need weight as a number, got '1'$"),
    (lambda: Term(losses.mse, regressor=NET), r"need regressor as LeastSquares\(...\), got Linear\(.*\)$"),
    (lambda: LeastSquares(dim=1.5), "need dim as an integer, got 1.5$"),
    (lambda: losses.SoftTargets(0), "need temperature > 0, got temperature=0$"),
    (lambda: Ensemble(nn.Sequential(NET)), r"need members as a list of modules, got Sequential\(.*\)$"),
    (lambda: Ensemble([NET, "b.ckpt"]), r"need members as a list of modules, got \[Linear.*, 'b.ckpt'\]$"),
    (lambda: Ensemble(None), "need members as a list of modules, got None$"),
    (lambda: Item(7)([IMAGES]), "need a batch with the entry 7, got 'list of 1'$"),
    (lambda: Item("y")([IMAGES]), "need a batch with the entry 'y', got 'list of 1'$"),
    (lambda: Item("y")({"x": IMAGES}), r"need a batch with the entry 'y', got \['x'\]$"),
    (lambda: losses.Decoupled(alpha=-1), "need alpha >= 0, got alpha=-1$"),
    (lambda: EMA("0.9"), "need decay as a number, got '0.9'$"),
    (lambda: Cache(3), "need path as text or a path, got 3$"),
    (lambda: from_checkpoint(Digits, "gone.ckpt"), "need path as that of a file, got 'gone.ckpt': no such file"),
    (lambda: Cache("gone"), "need a folder written by cache_outputs, got 'gone'$"),
    (lambda: from_checkpoint(NET, "a.ckpt"), r"need cls as the class of a LightningModule, got Linear\(.*\)$"),
    (lambda: from_checkpoint(Digits, 3), "need path as text or a path, got 3$"),
    (
        lambda: from_checkpoint(Digits, damaged("a.ckpt")),
        "need a checkpoint that the Trainer wrote as path, got 'a.ckpt', which is none$",
    ),
    (
        lambda: from_checkpoint(Digits, of_torch(NET.state_dict())),
        "need a checkpoint that the Trainer wrote as path, got 'weights.ckpt', which is none$",
    ),
    (lambda: from_checkpoint(Digits, archive()), "got 'm.lcz', which is an archive, which load_compressed loads$"),
    (
        lambda: from_checkpoint(Digits, of_torch({"state_dict": NET.state_dict(), **VERSION, "loss": nn.MSELoss()})),
        "need a checkpoint of tensors and plain values as path, got 'weights.ckpt', which holds torch.nn.*MSELoss: in",
    ),
    (
        lambda: from_checkpoint(Digits, of_torch({"state_dict": NET.state_dict(), **VERSION})),
        r"need the class of the module in path='weights.ckpt' as cls, got Digits: the file lacks \d+ names of the mod",
    ),
]
FUNCTIONS = [
    (lambda: export(NET, "model.onx"), "need path with a suffix out of .*, got '.onx'; did you mean '.onnx'"),
    (lambda: Program(compiled="no"), "need compiled as True or False, got 'no'$"),
    (lambda: Onnx(metadata=["a"]), r"need metadata as a mapping of text, got \['a'\]: write {name: text}$"),
    (lambda: export(NET, 3), "need path as text or a path, got 3$"),
    (
        lambda: export(nn.Linear, "m.lcz"),
        r"need module as a torch.nn.Module, got the class Linear: write Linear\(...\)$",
    ),
    (
        lambda: export(NET, "m.pt2", torch.zeros(1, 5)),
        r"need an example input that Linear.forward takes, got \(1, 5\), which",
    ),
    (lambda: export(NET, "m.lcz", writer=".onnx"), "need writer as an object of a subclass of Writer, got '.onnx'$"),
    (
        lambda: freeze(NET, torch.zeros(1, 5)),
        r"need an example input that Linear.forward takes, got \(1, 5\), which raises",
    ),
    (lambda: initialize(NET, NET, "0"), "need layers as a mapping, got '0': write {student's layer: teacher's layer}$"),
    (lambda: initialize(NET, NET, {"0": 1}), "need layers as names of layers, got 1 in it$"),
    (lambda: initialize(NET, {}, {}), "need teacher as a torch.nn.Module, got dict: write"),
    (lambda: tie(NET, "0"), "need ties as a mapping, got '0': write {layer: layer whose tensors it uses}$"),
    (lambda: tie("net", {}), "need module as a torch.nn.Module, got str$"),
    (lambda: save_archive(NET, "m.lcz"), r"need tensors as a mapping of .*, got Linear\(.*\): write module.state_dict"),
    (lambda: save_archive([NET.weight], "m.lcz"), r"need tensors as a mapping of tensors by name, got \[Parameter"),
    (lambda: archived_bytes(NET), r"need tensors as a mapping of .*, got Linear\(.*\): write module.state_dict\(\)$"),
    (lambda: split_low_rank("m.ckpt"), "need module as a torch.nn.Module, got str$"),
    (lambda: remove_zero_channels(Digits, IMAGES), r"need module as .*, got the class Digits: write Digits\(...\)$"),
    (
        lambda: plan(NET, ["PruningCallback"]),
        "need callbacks as objects of Callback, got 'PruningCallback' in the Trainer's",
    ),
    (lambda: plan(NET, [nn.ReLU()]), r"need callbacks as objects of Callback, got ReLU\(\) in the Trainer's list$"),
    (lambda: plan(NET, None), r"need callbacks as a list, got NoneType: write \[PruningCallback\(...\)\]$"),
    (lambda: Scored(len), "need metric as an object of torchmetrics, got <built-in function len>$"),
    (lambda: Logged(3), "need name as that of a metric, got 3$"),
    (lambda: OfOutputs(None), r"need function\(outputs, targets\) as a function, got None: leave"),
    (lambda: Mean(nothing), r"need loss\(module, batch\), got <function nothing .*, which takes other arguments"),
    (
        lambda: sensitivity(NET, [], methods=PRUNING, path="."),
        "need path as that of a file, got '.', which is a folder$",
    ),
    (lambda: save_archive({}, None), "need path as text or a path, got None$"),
    (lambda: save_archive({}, "m.lcz", [1]), r"need records as a mapping of values by name, got \[1\]$"),
    (
        lambda: run_folder(SimpleNamespace(is_global_zero=True), damaged("a")),
        "need dirpath as a folder, got 'a', where a file is$",
    ),
    (lambda: sensitivity(NET, [], methods=[]), "need at least one method, got none: pass methods="),
    (
        lambda: sensitivity(NET, [], methods=PRUNING, loss=None),
        r"need loss\(module, batch\) as a function, got None: leave",
    ),
    (
        lambda: sensitivity(NET, [], methods=PRUNING, metric=len),
        r"need metric\(module, batches\), got <built-in function len>",
    ),
    (lambda: sensitivity(NET, [], methods=PRUNING, examples="all"), "need examples as an integer, got 'all'$"),
]
FILES = [
    (lambda: compare([3]), "need paths as text or a path, got 3$"),
    (lambda: compare(None), "need paths as a list, got None$"),
    (lambda: compare(["gone"]), "need paths of runs, got 'gone', which does not exist$"),
    (lambda: read_report("gone.json"), "need path as that of a file, got 'gone.json': no such file$"),
    (lambda: read_report("."), "need path as that of a file, got '.', which is a folder$"),
    (lambda: read_report(archive()), "need a report as JSON, got m.lcz, which is damaged"),
    (lambda: load_archive(None), "need path as text or a path, got None$"),
    (lambda: load_archive("gone.lcz"), "need path as that of a file, got 'gone.lcz': no such file$"),
    (lambda: load_archive(archive(), max_bytes="1 GB"), "need max_bytes as an integer, got '1 GB'$"),
    (lambda: inspect_archive("gone.lcz"), "need path as that of a file, got 'gone.lcz': no such file$"),
    (lambda: load_compressed("Digits", archive()), "need the class of the module as cls, got a str$"),
    (
        lambda: load_compressed(Digits, archive()),
        r"need the module of the state dict in 'm.lcz', got Digits: the file lacks \d+ names of the module \(net.0.wei",
    ),
    (lambda: inspect_archive(NET), r"need path as text or a path, got Linear\(.*\)$"),
    (lambda: load_compressed(Digits, 3), "need ckpt_path as text or a path, got 3$"),
    (lambda: load_compressed(Digits, "gone.ckpt"), "need ckpt_path as that of a file, got 'gone.ckpt': no such file$"),
    (
        lambda: load_compressed(Digits, damaged("a.ckpt")),
        "need a checkpoint .* as ckpt_path, got 'a.ckpt', which is none: a state dict is",
    ),
    (
        lambda: load_compressed(Digits, of_torch({"state_dict": {}})),
        "need a checkpoint .*, got 'weights.ckpt', which is none: a state dict is",
    ),
]
TYPOS = [
    (lambda: PruningCallback(sparsty=0.9), "unexpected keyword argument 'sparsty'$"),
    (lambda: lightning_compress.PruningCallBack, "has no attribute 'PruningCallBack'$"),
]
ROWS = [*AMOUNTS, *OPTIONS, *CODE, *CONFLICTS, *SWITCHED_OFF, *TEACHERS, *FUNCTIONS, *FILES, *TYPOS]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to work in; a seed, which Lightning would warn about."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setattr(sys, "argv", ["lightning-compress"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("use", "answer"), ROWS, ids=[answer for _, answer in ROWS])
def test_a_wrong_use_is_answered_in_a_line(use, answer):
    with pytest.raises((AttributeError, OSError, TypeError, ValueError), match=answer) as error:
        use()
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 300


WORDS = {
    "init smaller": "argument GOAL: invalid choice: 'smaller'",
    "list callback": "need a kind out of callbacks, .*, got 'callback'",
    "export m.ckpt": "the following arguments are required: --format",
    "inspect gone.lcz": "need path as that of a file, got 'gone.lcz': no such file",
    "compare .": "need a folder with a report.json in it or below it, got '.'",
    "profil run": "need a command out of .*, got 'profil'; did you mean 'profile'?",
    "fit --config gone.yaml": "gone.yaml",
}
CALLBACKS = {
    "class_path: PruningCalback": "PruningCalback.*; did you mean 'PruningCallback'",
    "class_path: mine.Callback": "mine.Callback",
    "class_path: QATCallback, init_args: {weight_bit: 8}": "'weight_bit' is not accepted; did you mean 'weight_bits'",
    "class_path: QATCallback, init_args: {weight_bits: eight}": '"weight_bits".*eight',
    "class_path: QATCallback, init_args: {weight_bits: 32}": "need 2 <= weight_bits <= 8, got weight_bits=32$",
    "class_path: PruningCallback, init_args: {criterion: tailor}": "need criterion .*'tailor'; did you mean 'taylor'",
    "class_path: PruningCallback, init_args: {pattern: NM}": "patterns.NM.* arguments are required: n, m$",
    "class_path: LowRankCallback, init_args: {parameters: 0.5, energy: 0.9}": "got parameters=0.5 and energy=0.9$",
    "class_path: DistillationCallback": "DistillationCallback.* arguments are required: teacher$",
}


def answered(words, capsys):
    """What the command line says; the last line of the standard error."""
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code not in (None, 0)
    said = stopped.value.code if isinstance(stopped.value.code, str) else capsys.readouterr().err
    assert "Traceback" not in said
    return said.splitlines()[-1]


@pytest.mark.parametrize("words", WORDS)
def test_wrong_words_are_answered(words, capsys):
    said = answered(words.split(), capsys)
    assert re.search(r"^lightning-compress.*: error: ", said)
    assert re.search(WORDS[words], said)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_wrong_config_is_answered(callback, folder, capsys):
    (folder / "config.yaml").write_text(f"trainer: {{logger: false, callbacks: [{{{callback}}}]}}")
    said = answered(["fit", "--model", "examples.digits.DigitsClassifier", "--config", "config.yaml"], capsys)
    assert said.startswith("lightning-compress: error: ")
    text, _, place = said.partition(" (in config.yaml, line 1, ")
    assert re.search(CALLBACKS[callback], text)
    assert place.startswith("trainer.callbacks")
