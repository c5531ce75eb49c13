"""The ramp of a schedule ends at the fraction of the run that was asked for, counted in the steps that were taken."""

from itertools import count

import lightning as L
import pytest
from lightning.pytorch.callbacks import GradientAccumulationScheduler, Timer
from torch.nn import functional as F

from lightning_compress.distillation import DistillationCallback, Term, losses
from lightning_compress.schedules import Linear
from tests.support.methods import Halves
from tests.support.toys import Digits, Manual, build, fit, teacher


class Ramp(L.Callback):
    """Notes the strength of a method after every batch, and counts the optimizer steps until then."""

    def __init__(self, method):
        self.method, self.steps, self.noted = method, count(1), []
        self.taken = 0

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.taken = next(self.steps)

    def on_train_batch_end(self, trainer, *_):
        self.noted.append((self.taken, self.method.strength))


class ThreeSteps(Digits):
    """Steps three times in every batch, by hand."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for _ in range(3):
            self.optimizers().zero_grad()
            self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
            self.optimizers().step()


class EveryThird(ThreeSteps):
    """Accumulates gradients over three batches, by hand."""

    def training_step(self, batch, batch_idx):
        self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
        if batch_idx % 3 == 2:
            self.optimizers().step()
            self.optimizers().zero_grad()


BATCHES = {"max_epochs": 6}  # of twelve batches
RUNS = {
    "epochs": (Digits, {}, 72),
    "steps": (Digits, {"max_steps": 50}, 50),
    "epochs before steps": (Digits, {"max_steps": 1000}, 72),
    "half the data": (Digits, {"limit_train_batches": 0.5}, 36),
    "accumulated": (Digits, {"accumulate_grad_batches": 5}, 18),
    "accumulated by a schedule": (Digits, {"scheduling": {0: 1, 2: 5, 4: 12}}, 12 + 12 + 3 + 3 + 1 + 1),
    "accumulated by a schedule, late": (Digits, {"scheduling": {3: 6}}, 12 + 12 + 12 + 2 + 2 + 2),
    "accumulated by a schedule, steps": (Digits, {"scheduling": {0: 1, 2: 5}, "max_steps": 26}, 26),
    "two optimizers": (Manual, {}, 144),
    "two optimizers, steps": (Manual, {"max_steps": 100}, 100),
    "two optimizers, fewer steps than batches": (Manual, {"max_steps": 40}, 40),
    "two optimizers, epochs before steps": (Manual, {"max_steps": 1000}, 144),
    "three steps": (ThreeSteps, {}, 216),
    "three steps, steps": (ThreeSteps, {"max_steps": 120}, 120),
    "a step every third batch": (EveryThird, {}, 24),
    "a step every third batch, steps": (EveryThird, {"max_steps": 20}, 20),
}


def options_of(given):
    """Callbacks and options of a Trainer."""
    options = BATCHES | given
    scheduling = options.pop("scheduling", None)
    return [] if scheduling is None else [GradientAccumulationScheduler(dict(scheduling))], options


@pytest.mark.parametrize(("kind", "given", "steps"), RUNS.values(), ids=RUNS.keys())
def test_a_ramp_takes_its_part_of_the_real_run(kind, given, steps):
    method = Halves(schedule=Linear(0.25, 0.75))
    ramp = Ramp(method)
    callbacks, options = options_of(given)
    fit(build(kind=kind), method, ramp, *callbacks, **options)
    assert ramp.taken == steps
    per_batch = max(1, max(after - before for (before, _), (after, _) in zip(ramp.noted, ramp.noted[1:], strict=False)))
    begun = min(taken for taken, strength in ramp.noted if strength > 0)
    done = min(taken for taken, strength in ramp.noted if strength == 1)
    assert 0 < begun - 0.25 * steps <= 2 * per_batch
    assert 0 <= done - 0.75 * steps <= 2 * per_batch


@pytest.mark.parametrize("kind", ["accumulated by a schedule", "accumulated", "steps"])
def test_the_schedule_of_a_distillation_term_ends_with_the_run(kind):
    seen = []

    def schedule(progress):
        seen.append(progress)
        return progress

    _, given, steps = RUNS[kind]
    callbacks, options = options_of(given)
    term = Term(losses.SoftTargets(), schedule=schedule)
    seen.clear()  # the term has tried the schedule
    fit(build(), DistillationCallback(teacher(), losses=[term]), *callbacks, **options)
    assert max(seen) == pytest.approx(1 - 1 / steps)


@pytest.mark.parametrize(
    ("callbacks", "options"),
    [([], {"max_time": "00:01:00:00"}), ([Timer("00:01:00:00")], {})],
    ids=["Trainer", "Timer"],
)
def test_a_run_that_ends_at_a_time_is_refused(callbacks, options):
    message = "need a run of known length .* max_time of the Trainer, or a Timer.* set max_steps or max_epochs"
    with pytest.raises(ValueError, match=message):
        fit(build(), Halves(), *callbacks, **options)


def test_a_timer_that_only_measures_is_no_limit():
    fit(build(), Halves(), Timer(), max_epochs=1)
