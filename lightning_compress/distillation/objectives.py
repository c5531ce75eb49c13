"""Objectives: what a student is taught, from the calls of its network in one training step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_compress.distillation.features import Call, Recorder, match
from lightning_compress.distillation.regressors import Regressor
from lightning_compress.distillation.teachers import Convert, Live, Teacher
from lightning_compress.distillation.terms import Term

__all__ = ["Objective"]


class Objective:
    """``(1 - alpha) * task + alpha * sum_k weight_k * schedule_k(progress) * loss_k(student, teacher)``.

    Not a module on purpose: nothing that it holds can slip into the student's state.

    Args:
        teacher: a module, or a ``Teacher`` such as ``Cache`` and ``EMA``.
        terms: what is compared; None for soft targets of the outputs.
        alpha: share of the teacher, in [0, 1].
        network: name of the student's submodule whose calls are taught; ``""`` is the student's own
            ``forward``.
        metrics: of (student, teacher) outputs, updated in validation.

    Raises:
        TypeError: ``teacher`` or a term is of another kind.
        ValueError: ``alpha`` is not in [0, 1], or there is no term.
    """

    def __init__(
        self,
        teacher: nn.Module | Teacher,
        terms: Sequence[Term] | None,
        alpha: float,
        network: str,
        metrics: Sequence[Metric],
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ValueError(f"need 0 <= alpha <= 1, got alpha={alpha}")
        terms = (Term(),) if terms is None else terms
        if not isinstance(terms, Iterable):
            raise TypeError(f"need losses as a list of terms, got {terms!r}: write [Term(...)]")
        if not terms:
            raise ValueError("need at least one term in losses, got none")
        for term in terms:
            if not isinstance(term, Term):
                raise TypeError(f"need losses to be terms, got {term!r}: write Term({getattr(term, '__name__', term)})")
        if not isinstance(teacher, nn.Module) and not hasattr(teacher, "answer"):
            raise TypeError(f"need a module or a Teacher as teacher, got {type(teacher).__name__}")
        self.teacher: Teacher = Live(teacher) if isinstance(teacher, nn.Module) else teacher
        self.terms, self.alpha, self.network, self.metrics = tuple(terms), alpha, network, tuple(metrics)
        self._regressors: dict[str, Regressor] = {}
        self._moments: dict[str, Tensor] = {}
        self._pairs: list[list[tuple[str, str]]] = []
        self._recorder: Recorder | None = None
        self._calls: list[Call] = []
        self._batch: Any = None
        self.was_called = False

    def network_of_teacher(self) -> nn.Module:
        """The module that teaches, to read weights from; an error if the teacher is none, as ``Cache`` and ``EMA``."""
        if type(self.teacher) is not Live:
            raise ValueError(
                f"need a module as teacher to initialize from, got {type(self.teacher).__name__}: "
                "call initialize(student, network, layers) before with the network to start from"
            )
        return self.teacher.module

    def attach(self, student: nn.Module, convert: Convert) -> None:
        """Find the layers and hook them, once per fit; errors of names and shapes come from here."""
        if self._recorder is not None:
            return
        network = student.get_submodule(_known(student, self.network))
        self.teacher.begin(student, self.network, convert)
        names = [name for name, _ in student.named_modules()]
        self._pairs = [
            _paired(term, match(names, term.student, "student"), self.teacher.layers(term.teacher))
            for term in self.terms
        ]
        layers = {name for pairs in self._pairs for name, _ in pairs if name}
        self._recorder = Recorder(network, {name: student.get_submodule(name) for name in sorted(layers)})
        self.was_called = False

    def detach(self) -> None:
        """Take the hooks off the student."""
        if self._recorder is not None:
            self._recorder.remove()
            self._recorder = None

    @contextmanager
    def recording(self, batch: Any) -> Iterator[None]:
        """Record what the student's network does with ``batch``."""
        assert self._recorder is not None  # noqa: S101 - attach comes first, in one place
        self._batch = batch
        with self._recorder.recording() as calls:
            self._calls = calls
            try:
                yield
            finally:
                self._calls, self._batch = [], None

    def mix(self, task: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective for the calls recorded since the last mix, and each of its parts."""
        calls, parts = list(self._calls), {}
        self._calls.clear()
        if not calls:
            return task, {}
        self.was_called = True
        answers = [self.teacher.answer(call, self._wanted()) for call in calls]
        taught = torch.zeros((), device=task.device)
        for number, term in enumerate(self.terms):
            losses = [self._loss(number, call, answer) for call, answer in zip(calls, answers, strict=True)]
            parts[term.name] = torch.stack(losses).mean()
            taught = taught + term.weight * term.schedule(progress) * parts[term.name]
        return (1 - self.alpha) * task + self.alpha * taught, parts

    def check_called(self) -> None:
        """After a training step: an error if no step has called the network yet, so nothing was taught."""
        if not self.was_called:
            called = f"student.{self.network}" if self.network else "the student's own forward"
            raise ValueError(
                f"need a training_step that calls the network to be taught, got no call of {called}: "
                "give network= the name of the submodule that it calls "
                "(and call self.manual_backward in manual optimization)"
            )

    def measure(self) -> None:
        """Update the metrics with the calls recorded, outside of training."""
        for call in self._calls:
            answer = self.teacher.answer(call, [""])[""]
            for metric in self.metrics:
                metric.to(answer.device).update(call.outputs[""], answer)

    def measured(self) -> dict[str, Tensor]:
        """Name -> value of each metric over what was measured since the last time."""
        values = {type(metric).__name__.lower(): metric.compute() for metric in self.metrics if metric.update_called}
        for metric in self.metrics:
            metric.reset()
        return values

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside the student's own state; empty for most objectives."""
        moments = {name: one.moments for name, one in self._regressors.items() if one.moments is not None}
        parts = {"teacher": self.teacher.state_dict(), "regressors": moments or self._moments}
        return {name: part for name, part in parts.items() if part}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state; what is attached begins anew with it (a tuner takes its trial steps back)."""
        self.detach()
        self._moments, self._regressors = state.get("regressors", {}), {}
        if "teacher" in state:
            self.teacher.load_state_dict(state["teacher"])

    def _wanted(self) -> list[str]:
        return sorted({name for pairs in self._pairs for _, name in pairs})

    def _loss(self, number: int, call: Call, answer: Mapping[str, Tensor]) -> Tensor:
        """Mean over the pairs of one term."""
        term, losses = self.terms[number], []
        for pair in self._pairs[number]:
            if pair[0] not in call.outputs:
                raise ValueError(f"need a student layer that runs in every call of the network, got {pair[0]!r}")
            student, teacher, *labels = term.arguments(call.outputs[pair[0]], answer[pair[1]], self._batch)
            if term.regressor is not None:
                student, teacher = self._regressor(number, pair)(student, teacher)
            losses.append(self._checked(term, pair, student, teacher, labels))
        return torch.stack(losses).mean()

    def _checked(
        self, term: Term, pair: tuple[str, str], student: Tensor, teacher: Tensor, labels: list[Tensor]
    ) -> Tensor:
        try:
            loss: Tensor = term.loss(student, teacher, *labels)
            return loss
        except ValueError as error:
            hint = "" if term.regressor else "; a regressor in the term maps features of different shapes"
            where = f"student {pair[0] or 'output'!r}, teacher {pair[1] or 'output'!r}"
            raise ValueError(f"{term.name} of {where}: {error}{hint if pair[0] else ''}") from error

    def _regressor(self, number: int, pair: tuple[str, str]) -> Regressor:
        settings, name = self.terms[number].regressor, f"{number}/{pair[0]}/{pair[1]}"
        assert settings is not None  # noqa: S101
        if name not in self._regressors:
            self._regressors[name] = Regressor(settings)
            self._regressors[name].moments = self._moments.get(name)
        return self._regressors[name]


def _known(student: nn.Module, network: str) -> str:
    names = [name for name, _ in student.named_modules()]
    if network not in names:
        raise ValueError(f"need network to name a submodule of the student, got {network!r}; there are: {names[1:]}")
    return network


def _paired(term: Term, students: list[str], teachers: list[str]) -> list[tuple[str, str]]:
    if len(students) != len(teachers):
        raise ValueError(
            f"need as many layers of the student as of the teacher for {term.name}, got {students} and {teachers}"
        )
    return list(zip(students, teachers, strict=True))
