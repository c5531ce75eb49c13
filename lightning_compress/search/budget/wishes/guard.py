"""Guard: the wish for the smallest file with which a metric holds, and the last good model to go back to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_compress.arguments import check_count, check_number
from lightning_compress.messages import listed
from lightning_compress.processes import from_rank_zero
from lightning_compress.report.headlines import direction
from lightning_compress.schedules import Linear
from lightning_compress.search.budget.choice.choices import Choice
from lightning_compress.search.budget.wishes.interface import Wish
from lightning_compress.search.budget.wishes.ladder import Ladder
from lightning_compress.training.run import CompressionRun

__all__ = ["Guard"]

_BATCHES = 10  # whose gradients are read before the first size is tried
_UNJUDGED = 0.99  # largest strength before the search has ended
_FIRST, _STEP = 0.125, 0.6  # of the dense file: the first size that is tried; factor from each good size to the next
_CHANGING = "reference", "judged", "good", "holds", "trying", "failures", "climbs", "ended", "last", "kept"


class Guard(Wish):
    """Compares the metric of smaller and smaller files with that of the dense model.

    Args:
        max_drop: how much the metric may be worse than the reference.
        monitor: name of the metric, as the module logs it in validation.
        mode: whether a good metric is large or small; None for what its name says, and large where that says nothing.
        patience: number of validations, one after the other, in which a size may fail before the model goes back.
        reference: the metric of the dense model; None if it is measured.

    Raises:
        ValueError: ``max_drop`` is negative or infinite, or ``mode`` is another word.
        TypeError: an argument is of another kind.
    """

    schedule = Linear(0.0, 0.7)
    alone = compares = True

    def __init__(
        self,
        max_drop: float,
        *,
        monitor: str,
        mode: Literal["min", "max"] | None,
        patience: int,
        reference: float | None,
    ) -> None:
        check_number(max_drop=max_drop, **({} if reference is None else {"reference": reference}))
        if not 0 <= max_drop < math.inf:
            raise ValueError(f"need max_drop >= 0, got max_drop={max_drop!r}")
        _check_reference(reference, monitor)
        if not isinstance(monitor, str) or not monitor:
            raise TypeError(f"need monitor as the name of a metric, got {monitor!r}")
        if mode not in ("min", "max", None):
            raise ValueError(f"need mode 'min', 'max' or None, got mode={mode!r}")
        self.max_drop = max_drop
        check_count(patience=patience)
        self.monitor = monitor
        self.mode = mode or direction(monitor, {}) or "max"
        self.patience = patience
        self.reference = reference
        self.given = reference is not None
        """Whether the reference was given, as that of a model that may still have to be trained."""
        self.ladder: Ladder | None = None
        self.good: dict[str, Any] = {}
        """The model to go back to, and the choice that it was made with: that of the smallest good size with the best
        metric; while no size is good, the model with the best metric, at first the one that came in."""
        self.kept = -1
        """The optimizer step after which the model was that one."""
        self.last = math.nan
        """The metric of the last validation."""
        self.judged = -1
        """The optimizer step of the last validation."""
        self.holds = False
        """Whether the last validation saw a good model, and it is the model of now; or the run has left its model."""
        self.trying = False
        """Whether the weights have a size that no validation has judged."""
        self.failures = 0
        """Number of validations, one after the other, in which the present size failed."""
        self.climbs = True
        """Whether the next update takes the next size of the ladder."""
        self.ended = False
        """Whether the search is over."""
        self._left = False  # the run has ended, and left its model

    @property
    def bound(self) -> float:
        """The worst value that is good."""
        reference = math.nan if self.reference is None else self.reference
        return reference - self.max_drop if self.mode == "max" else reference + self.max_drop

    def describe(self) -> str:
        bound = f"{self.monitor} is at most {self.max_drop:g} worse"
        return f"the smallest file with which {bound}, by zeros and shared values"

    def check(self, module: nn.Module) -> None:
        """Refuse a model with random weights, whose metric is no reference.

        Raises:
            ValueError: the model has batch normalizations, and none of them has seen a batch.
        """
        norms = [norm.num_batches_tracked for norm in module.modules() if isinstance(norm, _BatchNorm)]
        seen = [int(batches) for batches in norms if batches is not None]
        if not self.given and seen and not any(seen):
            raise ValueError(
                "need a trained model to compare with, got one whose batch normalizations have seen no batch: train it "
                "first, or give the metric of a trained one as reference="
            )

    def predict(self, choice: Choice) -> str:
        return "the size is found in training, by the metric: no compression is predicted"

    def start(
        self, choice: Choice, expected: Choice, run: CompressionRun | None, incoming: Mapping[str, Tensor] | None
    ) -> str:
        if incoming is not None and (self.reference is None or self.monitor in incoming):
            self.last = self.read(incoming)
            self.reference = self.last if self.reference is None else self.reference
        told = self._build_ladder(choice)
        if run is not None:
            self._keep(choice, run, step=0)
        return told

    def _build_ladder(self, choice: Choice) -> str:
        if self.reference is None:
            raise ValueError(
                "need a validation of the dense model before training to compare with, got none: give the Trainer "
                f"validation data, or the value of {self.monitor} as reference="
            )
        _check_reference(self.reference, self.monitor)
        if self.mode == "max" and 0 <= self.reference <= self.max_drop:
            raise ValueError(
                f"need max_drop below {self.monitor} of the dense model, got max_drop={self.max_drop:g} where it is "
                f"{self.reference:.4g}, so that any model is good: max_drop has the unit of the metric, 0.01 is a "
                "point of accuracy"
            )
        fixed = choice.fixed()
        dense = float(fixed + choice.floats())
        self.ladder = Ladder(_FIRST * dense, fixed + choice.least(), _STEP, most=dense)
        dense_metric = f"{self.monitor} of the dense model is {self.reference:.4g}"
        return f"CompressionBudget: {dense_metric}, and {self.bound:.4g} is good"

    def strengthen(self, choice: Choice, strength: float) -> None:
        choice.composition.strengthen(1.0, 1.0)  # each size that is tried has all of its zeros and values at once

    def strength_at(self, scheduled: float, reached: float) -> float:
        return scheduled if self.ended else min(_UNJUDGED, scheduled)

    def is_due(self, choice: Choice, due: bool) -> bool:
        return self.climbs and choice.batches >= _BATCHES

    def reads(self, choice: Choice) -> bool:
        return True

    def update(self, choice: Choice, weights: Mapping[str, Tensor], strength: float) -> str:
        self.strengthen(choice, strength)
        finite = all(bool(weight.isfinite().all()) for weight in weights.values())  # else the next validation goes back
        if not self.climbs or not finite or self.ladder is None:
            return ""
        self.climbs, self.trying = False, True
        left = self.ladder.size - choice.fixed()
        choice.choose_zeros(weights, left)
        table = choice.choose_values(weights, left)
        choice.composition.update(weights)
        return f"CompressionBudget tries {self.ladder.size:,.0f} bytes:\n{table}"

    def read(self, metrics: Mapping[str, Tensor]) -> float:
        """The monitored metric, the same on all processes; a collective.

        Raises:
            ValueError: the module has not logged it.
        """
        if self.monitor not in metrics:
            raise ValueError(
                f"need monitor as a metric that the module logs in validation, got monitor={self.monitor!r} where it "
                f"logs {listed(sorted(metrics)) or 'nothing'}; the metric of one of several loaders needs reference="
            )
        return float(from_rank_zero(float(metrics[self.monitor])))

    def validated(self, choice: Choice, run: CompressionRun, metrics: Mapping[str, Tensor], *, over: bool) -> None:
        if self._left:
            return
        tried, settled, step = self.trying, self.ended, run.progress.steps
        untrained = self.given and not tried and not self._found  # a dense phase, on the way to the reference
        back = self.judge(self.read(metrics), step, over=over) and not settled and not untrained
        if (tried and self.holds) or self._improves():
            self._keep(choice, run, step)
        elif back or run.progress.ends() or not math.isfinite(self.last):
            self._go_back(choice, run, step)

    def ends(self, choice: Choice, run: CompressionRun) -> bool:
        if not self.good or (self.given and self.judged < 0):  # no training came, or nothing judged it
            return False
        if self.kept != run.progress.steps:
            self._go_back(choice, run, run.progress.steps)
        self._left = self.holds = True
        return True  # the search ends with the run

    def _keep(self, choice: Choice, run: CompressionRun, step: int) -> None:
        """Keep the model, and the choice that it was made with, as the one to go back to."""
        chosen = {"choice": choice.state(), "tensors": choice.copied_tensors()}
        self.good = {**chosen, "model": run.snapshot(), "metric": self.last, "step": step}
        self.kept = step

    def _go_back(self, choice: Choice, run: CompressionRun, step: int) -> None:
        """Go back to the model that was kept."""
        choice.set_state(self.good["choice"])
        self.strengthen(choice, 1.0)
        choice.load_tensors(self.good["tensors"], choice.targets)
        run.rewind(self.good["model"])
        self.last, self.kept, self.trying, self.holds = self.good["metric"], step, False, False

    def _improves(self) -> bool:
        """Whether the metric of the last validation is better than that of the model that was kept."""
        kept = self.good.get("metric", math.nan)
        better = self.last > kept if self.mode == "max" else self.last < kept
        return math.isfinite(self.last) and (better or math.isnan(kept))

    def judge(self, value: float, step: int, *, over: bool) -> bool:
        """Judge the model of a validation, and choose the next size.

        Args:
            value: its metric; one that is not a number never holds.
            step: number of optimizer steps that it has taken.
            over: whether the time for the search is over.

        Returns:
            whether to go back to the last good model.
        """
        self.last, self.judged = value, step
        self.holds = value >= self.bound if self.mode == "max" else value <= self.bound
        self.failures = 0 if self.holds else self.failures + 1
        waits = self.trying and not self.holds and math.isfinite(value) and self.failures < self.patience and not over
        if waits or self.ladder is None:
            return False
        if self.trying:
            self.ladder.judge(self.holds)
        self.trying, self.failures = False, 0
        self.ended = self.ended or over or self.ladder.ended
        self.climbs = not self.ended
        return not self.holds

    def result(self, choice: Choice) -> str:
        compared = f"{self.reference:.4g} {'as reference' if self.given else 'in the dense model'}"
        said = f"CompressionBudget: {self.monitor} is {self.last:.4g}, {compared}"
        return f"{said}; the file takes {choice.measured:,} bytes"

    @property
    def _found(self) -> bool:
        """Whether a size was good."""
        return self.ladder is not None and math.isfinite(self.ladder.good)

    def missed(self, choice: Choice) -> str:
        if self._found:
            return ""
        tried = self.ladder is not None and self.ladder.bad > 0
        found = f"no smaller file held {self.monitor} at {self.bound:.4g}" if tried else "no validation judged a size"
        return (
            f"CompressionBudget missed max_drop={self.max_drop:g}: {found}, so the model is {self._left_model()}; "
            "allow a larger drop, train longer, or validate more often"
        )

    def _left_model(self) -> str:
        """The model that was kept without a good size, in words."""
        came_in = "the dense one that came into fit" if self.good.get("step", 0) == 0 else "the best that was validated"
        return f"{came_in}, with {self.monitor} {self.last:.4g}" if math.isfinite(self.last) else came_in

    def state_dict(self) -> dict[str, Any]:
        ladder = None if self.ladder is None else asdict(self.ladder)
        return {"ladder": ladder, **{name: getattr(self, name) for name in _CHANGING}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.ladder = None if state["ladder"] is None else Ladder(**state["ladder"])
        for name in _CHANGING:
            setattr(self, name, state[name])


def _check_reference(reference: float | None, monitor: str) -> None:
    if reference is not None and not math.isfinite(reference):
        raise ValueError(
            f"need a finite metric of the dense model to compare with, got {reference!r} for {monitor}: mend the "
            "metric, or give reference="
        )
