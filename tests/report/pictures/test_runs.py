"""The picture of a run: its metric, the strengths of its methods, and a name for every line."""

from dataclasses import replace

from lightning_compress.report.measures.histories import Moment
from lightning_compress.report.pictures.runs import draw_metrics
from tests.support.reports import comparison_of

PRUNED = {"PruningCallback": {"strength": 1.0, "sparsity": 0.9}}


def run(*parameters, methods=PRUNED, before=None):
    history = tuple(Moment(step, {"val_acc": 0.9 + step / 100}, methods, n) for step, n in enumerate(parameters))
    return replace(comparison_of(100), history=history, metrics_before=before or {})


def names(figure):
    return [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]


def test_every_line_but_the_metric_has_a_name_once():
    figure = draw_metrics(run(20, 10, 10, 5, before={"val_acc": 0.95}))
    assert names(figure) == ["before", "channels removed", "PruningCallback (sparsity 0.9)"]


def test_a_run_without_methods_has_a_name_for_the_model_before_alone():
    assert names(draw_metrics(run(20, 20, methods={}, before={"val_acc": 0.95}))) == ["before"]
    assert names(draw_metrics(run(20, 20, methods={}))) == []


def test_one_validation_is_no_picture():
    assert draw_metrics(run(20)) is None
