"""Objectives: the loss of a taught student, from the calls of its network in one training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.arguments import check_scalar_answer
from lightning_compress.distillation.features import OUTPUT, NetworkCall, Recorder, Regressor, match
from lightning_compress.distillation.settings import DEFAULT, Settings
from lightning_compress.distillation.teachers import Convert, Live, Teacher
from lightning_compress.distillation.terms import Term, log_name
from lightning_compress.example_inputs import tensors_in
from lightning_compress.messages import listed
from lightning_compress.schedules import strength_at

__all__ = ["Objective"]


class Objective:
    """``task_weight * task + alpha * sum_k weight_k * schedule_k(progress) * loss_k(student, teacher)``.

    It is no module, so that nothing in it can become part of the student's state. A copy or a pickle has the same
    settings and begins without running state.

    Args:
        settings: teacher, losses and their weights.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.teacher: Teacher = settings.teacher
        self._names = _distinct([term.name for term in settings.losses])
        self._metrics = dict(zip(_distinct([log_name(one) for one in settings.metrics]), settings.metrics, strict=True))
        self._regressors: dict[str, Regressor] = {}
        self._moments: dict[str, Tensor] = {}
        self._pairs: list[list[tuple[str, str]]] = []
        self._recorder: Recorder | None = None
        self._calls: list[NetworkCall] = []
        self._batch: Any = None
        self._batches_done: Callable[[], int] = _none
        self._batches_before = 0
        self.was_called = False

    def __reduce__(self) -> tuple[type[Objective], tuple[Settings]]:
        return Objective, (self.settings,)

    def report(self) -> dict[str, object]:
        """The teacher, for the report of a run: its name, and its size if it is a module."""
        told: dict[str, object] = {"teacher": repr(self.teacher).removesuffix("(...)")}
        if type(self.teacher) is Live:  # averages and caches have no size of their own
            module = self.teacher.module
            told["teacher parameters"] = sum(parameter.numel() for parameter in module.parameters())
            told["teacher state dict, bytes"] = sum(tensor.nbytes for tensor in module.state_dict().values())
        return told

    def attach(self, student: nn.Module, convert: Convert) -> None:
        """Find the layers and hook them, once per fit; errors of names and shapes come from here."""
        if self._recorder is not None:
            return
        name = _known(student, self.settings.network)
        self.teacher.begin(student, name, convert)
        names = [name for name, _ in student.named_modules()]
        self._pairs = [
            _paired(term, match(names, term.student_layers, "student"), self.teacher.layers(term.teacher_layers))
            for term in self.settings.losses
        ]
        layers = {layer for pairs in self._pairs for layer, _ in pairs if layer != OUTPUT}
        self._recorder = Recorder(
            student.get_submodule(name), {layer: student.get_submodule(layer) for layer in sorted(layers)}
        )
        self.was_called = False

    def begin_batch(self, batches_done: Callable[[], int]) -> None:
        """Begin a training step; regressors forget the step before if its batch was not done.

        Args:
            batches_done: gives the number of batches that are done, now and later.
        """
        self._join_if_done()
        for regressor in self._regressors.values():
            regressor.forget()
        self._batches_done, self._batches_before = batches_done, batches_done()

    def detach(self) -> None:
        """Remove the hooks from the student."""
        self.begin_batch(_none)
        if self._recorder is not None:
            self._recorder.remove()
            self._recorder = None

    @contextmanager
    def recording(self, batch: Any) -> Iterator[None]:
        """Record the calls of the student's network on ``batch``."""
        assert self._recorder is not None  # noqa: S101 - attach comes first, in one place
        self._batch = batch
        with self._recorder.recording() as calls:
            self._calls = calls
            try:
                yield
            finally:
                self._calls, self._batch = [], None

    def mix(self, task: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective for the calls recorded since the last mix, and each of its parts by name."""
        calls, parts = list(self._calls), {}
        self._calls.clear()
        if not calls:
            return task, {}
        if not self.was_called and any(term is DEFAULT for term in self.settings.losses):
            _check_classes(calls[0], self._batch)
        self.was_called = True
        answers = [self.teacher.answer(call, self._teacher_layers()) for call in calls]
        taught = torch.zeros((), device=task.device)
        for number, term in enumerate(self.settings.losses):
            losses = [self._loss(number, call, answer) for call, answer in zip(calls, answers, strict=True)]
            part = torch.stack(losses).mean()
            taught = taught + term.weight * strength_at(term.schedule, progress) * part
            parts[self._names[number]] = part
        task_weight, alpha = self.settings.weights
        return task_weight * task + alpha * taught, parts

    def check_called(self) -> None:
        """Refuse, after a training step, a network that no step has called yet: nothing was taught."""
        if not self.was_called:
            name = self.settings.network
            called = f"student.{name}" if name else "the student's own forward"
            raise ValueError(
                f"need a training_step that calls the network to be taught, got no call of {called}: "
                "give network= the name of the submodule that it calls "
                "(and call self.manual_backward in manual optimization)"
            )

    def update_metrics(self) -> None:
        """Update the metrics with the recorded calls."""
        for call in self._calls:
            answer = self.teacher.answer(call, [OUTPUT])[OUTPUT]
            for metric in self._metrics.values():
                metric.to(answer.device).update(call.outputs[OUTPUT], answer)

    def compute_metrics(self) -> dict[str, Tensor]:
        """Name -> value of each metric that was updated; all metrics are reset."""
        values = {name: metric.compute() for name, metric in self._metrics.items() if metric.update_called}
        for metric in self._metrics.values():
            metric.reset()
        return values

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs beside the student's; empty for most objectives."""
        self._join_if_done()
        moments = {name: one.moments for name, one in self._regressors.items() if one.moments is not None}
        parts = {"teacher": self.teacher.state_dict(), "regressors": moments or self._moments}
        return {name: part for name, part in parts.items() if part}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state; an attached objective attaches again with it (a tuner undoes its trial steps)."""
        self.detach()
        self._moments, self._regressors = state.get("regressors", {}), {}
        if "teacher" in state:
            self.teacher.load_state_dict(state["teacher"])

    def _join_if_done(self) -> None:
        """Let the last batch count in the moments of regressors, if it is done."""
        if self._batches_done() > self._batches_before:
            for regressor in self._regressors.values():
                regressor.join()

    def _teacher_layers(self) -> list[str]:
        return sorted({name for pairs in self._pairs for _, name in pairs})

    def _loss(self, number: int, call: NetworkCall, answer: Mapping[str, Tensor]) -> Tensor:
        """Mean over the pairs of one term."""
        term, losses = self.settings.losses[number], []
        for pair in self._pairs[number]:
            if pair[0] not in call.outputs:
                raise ValueError(f"need a student layer that runs in every call of the network, got {pair[0]!r}")
            student, teacher, *labels = term.loss_arguments(call.outputs[pair[0]], answer[pair[1]], self._batch)
            if term.regressor is not None:
                student, teacher = self._regressor(number, pair)(student, teacher)
            losses.append(_called(term, pair, student, teacher, labels))
        return torch.stack(losses).mean()

    def _regressor(self, number: int, pair: tuple[str, str]) -> Regressor:
        settings, name = self.settings.losses[number].regressor, f"{number}/{pair[0]}/{pair[1]}"
        assert settings is not None  # noqa: S101
        if name not in self._regressors:
            self._regressors[name] = Regressor(settings)
            self._regressors[name].moments = self._moments.get(name)
        return self._regressors[name]


def _none() -> int:
    return 0


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where one occurs again.

    >>> _distinct(["mse", "cosine", "mse"])
    ['mse', 'cosine', 'mse_2']
    """
    return [
        name if number == 0 else f"{name}_{number + 1}"
        for name, number in ((name, names[:place].count(name)) for place, name in enumerate(names))
    ]


def _called(term: Term, pair: tuple[str, str], student: Tensor, teacher: Tensor, labels: list[Tensor]) -> Tensor:
    """The loss of one pair of layers; an error names the term and the layers."""
    try:
        loss: Tensor = term.loss(student, teacher, *labels)
    except ValueError as error:
        is_feature = pair[0] != OUTPUT and term.regressor is None
        hint = "; a regressor in the term maps features of different shapes" if is_feature else ""
        where = f"student {pair[0] or 'output'!r}, teacher {pair[1] or 'output'!r}"
        raise ValueError(f"{term.name} of {where}: {error}{hint}") from error
    check_scalar_answer("loss(student, teacher)", term.loss, loss)
    return loss


def _check_classes(call: NetworkCall, batch: Any) -> None:
    """Refuse the default loss, of class scores, where the batch does not show that the outputs are class scores.

    It does by integer labels, one for each row ``[..., classes]``, without floating targets of the outputs' shape.
    """
    output, inputs = call.outputs[OUTPUT], tensors_in((call.args, dict(call.kwargs)))
    rows, classes = output.shape[:-1], output.shape[-1] if output.ndim else 0
    labelled = regressed = False
    for tensor in tensors_in(batch):
        if tensor.is_floating_point():
            regressed |= tensor.shape == output.shape and not any(tensor is given for given in inputs)
        elif tensor.shape in (rows, (*rows, 1)) and tensor.dtype != torch.bool and tensor.numel():
            labelled |= int(tensor.max()) < classes
    if classes < 2 or regressed or not labelled:
        raise ValueError(
            f"need losses= for outputs of shape {tuple(output.shape)}, got none, and the batch does not hold one "
            "integer label for each row of scores: write losses=[losses.Decoupled()] for class scores, or "
            "losses=[losses.mse] for numbers"
        )


def _known(student: nn.Module, network: str | None) -> str:
    """The name of the taught submodule in ``named_modules()``; empty for the student itself."""
    names = [name for name, _ in student.named_modules()]
    if network is not None and network not in names:
        raise ValueError(
            f"need network to name a submodule of the student, got {network!r}; there are: {listed(names[1:])}"
        )
    return network or ""


def _paired(term: Term, students: list[str], teachers: list[str]) -> list[tuple[str, str]]:
    if len(students) != len(teachers):
        raise ValueError(
            f"need as many layers of the student as of the teacher for {term.name}, got "
            f"{len(students)} ({listed(students)}) and {len(teachers)} ({listed(teachers)})"
        )
    return list(zip(students, teachers, strict=True))
