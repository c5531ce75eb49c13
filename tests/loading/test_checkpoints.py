"""Archives and checkpoints are read without building objects; values that a file lacks are not replaced in silence."""

import functools
import pickle

import lightning as L
import pytest
import torch
from torch import nn

from lightning_compress import ArchiveError, ChannelPruningCallback, QATCallback, export, load_archive, load_compressed
from tests.support.runs import same, trainer
from tests.support.toys import Batches, Digits, build, digits, fit

pytestmark = pytest.mark.filterwarnings(
    "ignore:Attribute 'loss' is an instance of `nn.Module`", "ignore:You defined a `validation_step` but have no"
)
IMAGES = digits()[0][1400:1500]


class Held(Digits):
    """Digits with hyperparameters: plain ones, a loss, and a factory of its optimizer."""

    def __init__(self, width: tuple[int, ...] = (3,), loss: nn.Module | None = None, factory=torch.optim.SGD) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.head = nn.Linear(10, width[0])
        self.loss = loss or nn.CrossEntropyLoss()

    def forward(self, images):
        return self.head(super().forward(images))

    def training_step(self, batch, batch_idx):
        return self.loss(self(batch[0]), batch[1] % self.head.out_features)

    def configure_optimizers(self):
        return self.hparams.factory(self.parameters())


class RanError(Exception):
    pass


class Bomb:
    """A hyperparameter that runs code where it is unpickled."""

    def __reduce__(self):
        return _burst, ()


def _burst():
    raise RanError


FACTORY = functools.partial(torch.optim.Adam, lr=1e-3)


def smooth():
    return nn.CrossEntropyLoss(label_smoothing=0.1)


@pytest.fixture
def held(tmp_path):
    L.seed_everything(0, verbose=False)
    module = Held((4, 5), smooth(), FACTORY)
    run = trainer(ChannelPruningCallback(macs=0.5, round_to=4, example_input=IMAGES[:2]), QATCallback(), max_epochs=2)
    run.fit(module, Batches())
    run.save_checkpoint(tmp_path / "m.ckpt")
    export(module, tmp_path / "m.lcz")
    return module.eval(), tmp_path


@pytest.mark.parametrize("name", ["m.ckpt", "m.lcz"])
def test_what_a_file_cannot_hold_is_given_anew(held, name):
    module, folder = held
    loaded = load_compressed(Held, folder / name, loss=smooth(), factory=FACTORY).eval()
    assert same(loaded, module)
    assert torch.equal(loaded(IMAGES), module(IMAGES))
    assert loaded.hparams.width == (4, 5)
    assert loaded.loss.label_smoothing == 0.1
    assert type(loaded) is Held


@pytest.mark.parametrize("name", ["m.ckpt", "m.lcz"])
def test_what_a_file_cannot_hold_is_named(held, name):
    """The class has defaults for both, which would be another module."""
    with pytest.raises(ValueError, match=r"need factory as arguments of load_compressed, .*\(\.\.\., factory=\.\.\.\)"):
        load_compressed(Held, held[1] / name, loss=smooth())


class Keeping(Digits):
    """Writes entries of its own into its checkpoints, and reads them, as modules of other packages do."""

    def on_save_checkpoint(self, checkpoint):
        checkpoint["width"], checkpoint["criterion"] = 3, smooth()

    def on_load_checkpoint(self, checkpoint):
        self.width, self.criterion = checkpoint["width"], checkpoint["criterion"]
        self.missing = checkpoint["an entry that no version has written"]


def test_an_entry_that_is_no_plain_value_is_named(tmp_path):
    module = build(kind=Keeping)
    fit(module, QATCallback(), max_epochs=1).save_checkpoint(tmp_path / "m.ckpt")
    message = "need the entry 'criterion', which Keeping.on_load_checkpoint reads, got .*: pass weights_only=False"
    with pytest.raises(ValueError, match=message):
        load_compressed(Keeping, tmp_path / "m.ckpt")
    with pytest.raises(KeyError, match="an entry that no version has written"):
        load_compressed(Keeping, tmp_path / "m.ckpt", weights_only=False)
    export(module, tmp_path / "m.lcz")
    with pytest.raises(ValueError, match="need the entry 'width', .* got an archive, which holds no entries of a mod"):
        load_compressed(Keeping, tmp_path / "m.lcz")


def test_a_trusted_checkpoint_builds_its_objects(held):
    module, folder = held
    loaded = load_compressed(Held, folder / "m.ckpt", weights_only=False).eval()
    assert torch.equal(loaded(IMAGES), module(IMAGES))
    assert loaded.loss.label_smoothing == 0.1


def test_arguments_replace_what_the_file_holds(held, tmp_path):
    for name in ("m.ckpt", "m.lcz"):
        loaded = load_compressed(Held, held[1] / name, loss=None, factory=torch.optim.SGD)
        assert loaded.hparams.factory is torch.optim.SGD
        assert loaded.loss.label_smoothing == 0


@pytest.mark.parametrize("place", [("hyper_parameters", "loss"), ("callbacks",), ("mine",), ("hyper_parameters",)])
def test_a_file_runs_nothing(held, place):
    path = held[1] / "m.ckpt"
    saved = torch.load(path, weights_only=False)
    inside = saved
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = [{"deep": (Bomb(),)}]
    torch.save(saved, path)
    with pytest.raises(RanError):
        torch.load(path, weights_only=False)
    load_compressed(Held, path, loss=smooth(), factory=FACTORY, width=(4, 5))


def test_a_pickle_that_is_called_an_archive_is_refused(tmp_path):
    (tmp_path / "m.lcz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ArchiveError, match="this is not an archive"):
        load_compressed(Digits, tmp_path / "m.lcz")


def test_a_part_of_a_module_comes_back(tmp_path):
    """The network inside a LightningModule carries nothing itself; its quantizers are found on its layers."""
    module = build()
    fit(module, QATCallback(4, activation_bits=4), max_epochs=1)
    net = export(module.net, tmp_path / "net.lcz")
    loaded = load_compressed(Plain, net).eval()
    module.eval()
    assert torch.equal(loaded(IMAGES), module(IMAGES))
    with pytest.warns(UserWarning, match="the state dict in net.lcz alone is not the model"):
        load_archive(net)


class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(*build().net)


def test_a_checkpoint_of_a_plain_module_is_refused(held):
    with pytest.raises(TypeError, match="need the class of the LightningModule of a checkpoint as cls, got Plain"):
        load_compressed(Plain, held[1] / "m.ckpt")


class Sized(L.LightningModule):
    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Linear(3, width)


class Wider(Sized):
    pass


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Lightning's use of jsonargparse
def test_a_checkpoint_of_the_command_line_names_its_class(tmp_path):
    """As LightningCLI writes it: with the class, and a builder that would build that class alone."""
    path = tmp_path / "a.ckpt"
    module = Sized(4)
    own = trainer()
    own.strategy.connect(module)
    own.save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"] |= {
        "_class_path": f"{__name__}.Sized",
        "_instantiator": "lightning.pytorch.cli.instantiate_module",
    }
    torch.save(content, path)
    loaded = load_compressed(Sized, path)
    assert type(loaded) is Sized
    assert torch.equal(loaded.net.weight, module.net.weight)
    with pytest.raises(ValueError, match=f"need {__name__}.Sized as cls, the class that the file records, got Wider"):
        load_compressed(Wider, path)


def saved(content, path):
    torch.save(content, path)
    return path


@pytest.mark.parametrize("suffix", ["", "in a dict", "list", "junk", "half"])
def test_a_file_that_is_no_checkpoint_of_the_trainer_is_named(suffix, tmp_path):
    path = tmp_path / "a.ckpt"
    contents = {"": Sized().state_dict(), "in a dict": {"state_dict": Sized().state_dict()}, "list": [1]}
    if suffix in contents:
        saved(contents[suffix], path)
    elif suffix == "half":
        path.write_bytes((whole := saved([1], path).read_bytes())[: len(whole) // 2])
    else:
        path.write_bytes(b"hello world, this is no checkpoint")
    with pytest.raises(
        ValueError, match=r"^need a checkpoint that the Trainer wrote as ckpt_path, got '.*a\.ckpt', which "
    ):
        load_compressed(Sized, path)


class Needy(L.LightningModule):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Linear(3, width)


def test_a_class_that_does_not_fit_the_file_is_named(tmp_path):
    path = saved({"state_dict": Needy(2).state_dict(), "pytorch-lightning_version": L.__version__}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"need width as arguments of Needy, got .*\(\.\.\., width=\.\.\.\), or on"):
        load_compressed(Needy, path)
    assert load_compressed(Needy, path, width=2).net.out_features == 2
    with pytest.raises(ValueError, match=r"got Needy: the file has .* of another shape \(net.weight: .*; pass"):
        load_compressed(Needy, path, width=4)
    with pytest.raises(TypeError, match="need the class of the LightningModule of a checkpoint as cls, got Batches"):
        load_compressed(Batches, path)


class All(Needy):
    def __init__(self, width: int, *names: str, depth: int, **others: int) -> None:
        super().__init__(width)
        self.save_hyperparameters()


class Some(Needy):
    def __init__(self, width: int, size: int = 3) -> None:
        super().__init__(width)
        self.save_hyperparameters("width", "size")


class One(Needy):
    def __init__(self, config: dict[str, int]) -> None:
        super().__init__(config["width"])
        self.save_hyperparameters(config)


class Whole(Needy):
    def __init__(self, **kwargs: int) -> None:
        super().__init__(kwargs["width"])
        self.save_hyperparameters(kwargs)


@pytest.mark.parametrize("suffix", [".ckpt", ".lcz"])
@pytest.mark.parametrize(
    "module",
    [lambda: All(2, depth=1), lambda: Some(2), lambda: One({"width": 2}), lambda: Whole(width=2)],
    ids=["all", "some", "one", "whole"],
)
def test_arguments_without_defaults_are_taken_from_the_file(module, suffix, tmp_path):
    """In each of the ways in which ``save_hyperparameters`` is called; Lightning itself loads the checkpoint."""
    module, path, own = module(), tmp_path / f"m{suffix}", trainer()
    own.strategy.connect(module)
    own.save_checkpoint(tmp_path / "m.ckpt")
    export(module, tmp_path / "m.lcz")
    expected = type(module).load_from_checkpoint(tmp_path / "m.ckpt")
    loaded = load_compressed(type(module), path)
    assert type(loaded) is type(module)
    assert dict(loaded.hparams) == dict(expected.hparams)
    assert torch.equal(loaded.net.weight, module.net.weight)
