"""Channels are found in the first training batch where the data cannot be looked up by index."""

import lightning as L
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_compress import (
    ChannelPruningCallback,
    DistillationCallback,
    DistillationModule,
    PruningCallback,
    QATCallback,
)
from lightning_compress.schedules import Linear, Step
from tests.support.distributed import run_distributed
from tests.support.promises import on_grids
from tests.support.runs import Randomness, differing, resumes, trainer, uninterrupted
from tests.support.toys import Batches, Digits, build, digits, held_out, teacher

IMAGES, LABELS = digits()
EXAMPLE = torch.zeros(2, 1, 8, 8)


class Stream(IterableDataset):
    """Digits that can be read from the first on, and nothing else; ``started`` counts how often."""

    def __init__(self) -> None:
        self.started = 0

    def __iter__(self):
        self.started += 1
        yield from zip(IMAGES[:384], LABELS[:384], strict=True)


def channels(**options):
    return ChannelPruningCallback(0.5, **{"round_to": 4, "schedule": Linear(0.1, 0.5), "every_n_steps": 3, **options})


def fit(module, *callbacks, stream=None, **options):
    """Train ``module`` on a stream; returns how often the stream was started."""
    stream = stream or Stream()
    L.seed_everything(0, verbose=False)
    run = trainer(*callbacks, **{"limit_train_batches": 12, **options})
    run.fit(module, DataLoader(stream, 32), held_out())
    return stream.started


class Taught(DistillationModule):
    def __init__(self, student):
        super().__init__(student, teacher(), alpha=0.5)


OTHERS = {
    "alone": list,
    "QAT": lambda: [QATCallback(schedule=Step(0.2), every_n_steps=2)],
    "pruning": lambda: [PruningCallback(0.5, include=("net.0",), schedule=Linear(0.1, 0.5), every_n_steps=3)],
    "distillation": lambda: [DistillationCallback(teacher(), alpha=0.5)],
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS.keys())
def test_the_run_is_that_with_an_example_and_no_sample_is_read_twice(others, first):
    ends = []
    for example in (EXAMPLE, None):
        module, more = build(), others()
        pruning = channels(example_input=example, exclude=("net.0",))
        assert fit(module, *([pruning, *more] if first else [*more, pruning])) == 3  # epochs
        assert len(module.net[3].weight) < 16
        assert all(method.strength == 1.0 for method in [pruning, *more] if hasattr(method, "strength"))
        ends.append(module)
    assert not differing(*ends)
    assert on_grids(module) == (others is OTHERS["QAT"])


def test_a_student_in_a_module_of_distillation():
    ends = []
    for example in (EXAMPLE, None):
        student = build()
        assert fit(Taught(student), channels(example_input=example)) == 3
        ends.append(student)
    assert not differing(*ends)


class Watch(L.Callback):
    """Notes the weights that validation sees before training, and how many steps training has made."""

    def __init__(self):
        self.seen, self.steps = [], 0

    def on_sanity_check_start(self, trainer, pl_module):
        self.before = {name: value.clone() for name, value in pl_module.state_dict().items()}

    def on_validation_batch_end(self, trainer, pl_module, *_):
        if trainer.sanity_checking:
            self.seen += [torch.equal(value, self.before[name]) for name, value in pl_module.state_dict().items()]

    def on_train_batch_end(self, *_):
        self.steps += 1


def test_the_sanity_check_before_the_first_batch_sees_the_dense_model():
    module, watch = build(), Watch()
    fit(module, channels(schedule=Linear(0.0, 0.1)), watch, num_sanity_val_steps=1)
    assert watch.seen
    assert all(watch.seen)


class TwoInputs(Digits):
    """``forward`` takes a second input, which no batch holds."""

    def forward(self, images, mask):
        return self.net(images * mask)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0], torch.ones(1, 1, 7, 7)), batch[1])

    def validation_step(self, batch, batch_idx):
        pass


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            TwoInputs,
            {},
            r"need a batch that holds the input of TwoInputs\.forward, got .*set module\.example",
        ),
        (Digits, {"round_to": 16}, r"need macs >= \S+ for this model with round_to=16, got macs=0\.5"),
    ],
)
def test_errors_come_before_the_first_step(kind, options, message):
    watch = Watch()
    with pytest.raises(ValueError, match=message):
        fit(build(kind=kind), watch, channels(**options))
    assert watch.steps == 0


def test_a_run_without_an_end_is_refused_before_the_first_batch():
    stream = Stream()
    with pytest.raises(ValueError, match="need a run of known length to follow a schedule"):
        fit(build(), channels(), stream=stream, limit_train_batches=1.0)


class Opened(Dataset):
    """Samples that can be read once the module's ``fit`` has begun."""

    open = False

    def __len__(self):
        return 384

    def __getitem__(self, index):
        if not self.open:
            raise OSError("not open yet")
        return IMAGES[index], LABELS[index]


def test_data_that_opens_when_training_begins():
    class Opening(Digits):
        def on_fit_start(self):
            samples.open = True

    module, samples = build(kind=Opening), Opened()
    trainer(channels()).fit(module, DataLoader(samples, 32), held_out())
    assert len(module.net[3].weight) < 16


def test_a_second_fit_of_one_callback_on_another_stream():
    pruning, ends = channels(), []
    for _ in range(2):
        ends.append(build())
        fit(ends[-1], pruning)
    assert not differing(*ends)


class Growing(Batches):
    """Images of other sizes in every batch: the price of a convolution in the first of a run is that of this run."""

    def __iter__(self):
        for images, labels in super().__iter__():
            size = 4 + (self.position + 2 * self.epoch) % 5
            yield [images[:, :, :size, :size], labels]


@resumes
@pytest.mark.parametrize("others", [OTHERS["alone"], OTHERS["QAT"]], ids=["alone", "QAT"])
def test_a_resumed_run_keeps_the_plan_of_its_first_batch(others, tmp_path):
    widths = {}

    class Widths(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            widths.setdefault(trainer.global_step, len(pl_module.net[3].weight))

    def run(*callbacks, ckpt_path=None):
        module = build()
        L.seed_everything(0, verbose=False)
        pruning = channels(exclude=("net.0",))
        fitted = trainer(*others(), pruning, Randomness(), Widths(), *callbacks)
        fitted.fit(module, Growing(), held_out(), ckpt_path=ckpt_path)
        assert pruning.strength == 1.0
        return module

    run()
    cut = next(step for step, width in widths.items() if width < 16)
    assert 5 < cut < 30
    uninterrupted(run, tmp_path, (1, 5, cut - 1, cut, cut + 1, 30, 36))


def _ranks():
    """Each rank has images of its own and of its own size."""
    module = build()
    L.seed_everything(0, verbose=False)
    pruning = channels()
    run = trainer(pruning, strategy="ddp", devices=2)

    class Sized(Batches):
        def __iter__(self):
            for images, labels in super().__iter__():
                yield [images[:, :, : 8 - 4 * run.global_rank, : 8 - 4 * run.global_rank], labels]

    run.fit(module, Sized(seed=run.global_rank + 1), held_out())
    weights = {name: p.detach().numpy() for name, p in module.named_parameters()}
    return weights, pruning.metrics()["macs"], pruning._budget.costs.prices["macs"]


def test_the_plan_of_all_ranks_is_that_of_the_first():
    (weights, macs, prices), (others, same_macs, same_prices) = run_distributed(_ranks)
    assert prices["net.0.weight"] == 64  # positions of an image of the first rank
    assert prices == same_prices
    assert macs == same_macs <= 0.5
    assert len(weights["net.3.weight"]) < 16
    assert all((weights[name] == others[name]).all() for name in weights)
