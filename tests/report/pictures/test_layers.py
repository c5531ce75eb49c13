"""Pictures of single layers: their bars are the numbers of the report."""

import re
from dataclasses import replace

import pytest

from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.measures.histories import Moment
from lightning_compress.report.measures.profiles import LayerProfile, ModelProfile
from lightning_compress.report.pictures.styles import svg_of
from lightning_compress.timing import Latency


def model(*layers, size=1000):
    return ModelProfile(layers, sum(layer.state_bytes for layer in layers), size)


def layer(name, shape=(4, 5), **options):
    return LayerProfile(
        name, shape, **({"nonzeros": 20, "distinct": 9, "state_bytes": 80, "archive_bytes": 20} | options)
    )


DENSE = model(layer("a"), layer("b"))
SLOW, FAST = Latency(2e-3, 1.9e-3, 2.1e-3, "cpu"), Latency(1e-3, 0.9e-3, 1.1e-3, "cpu")


def widths(figure):
    return [bar.get_width() for bar in figure.axes[0].patches]


def test_zeros_are_those_of_the_layers():
    comparison = Comparison(DENSE, model(layer("a", nonzeros=5), layer("b"), size=90))
    assert widths(comparison.plot("zeros")) == pytest.approx([75, 0])
    assert comparison.pictures == ("bytes", "zeros")


def test_bits_and_channels_are_drawn_where_they_changed():
    integers = model(layer("a", bits=8, scales=1), layer("b"), size=90)
    assert widths(Comparison(DENSE, integers).plot("bits")) == [8, 32]
    narrow = model(layer("a", (2, 5), nonzeros=10), layer("b"), size=90)
    drawn = Comparison(DENSE, narrow).plot("channels")
    assert widths(drawn) == [4, 4, 2, 4]
    assert "2 of 4" in [text.get_text() for text in drawn.axes[0].texts]


def test_many_layers_are_a_line():
    many = model(*(layer(f"l{n}", nonzeros=n % 20) for n in range(300)))
    (steps,) = Comparison(many, many).plot("zeros").axes[0].patches
    assert len(steps.get_data().values) == 300


def test_bytes_are_those_of_the_stages():
    pruned = model(layer("a", nonzeros=2, distinct=20), layer("b", distinct=20), size=50)
    drawn = Comparison(DENSE, pruned).plot("bytes")
    assert widths(drawn) == pytest.approx([0.16, 0.08 + 0.011, 0.05])  # 2 numbers and 20 bits, and 80 bytes


def test_metrics_ramps_and_removals_are_marked():
    strengths = (0.0, 0.5, 0.8, 1.0)
    history = tuple(
        Moment(
            10 * n,
            {"val_acc": 0.1 * n, "val_loss": 1.0},
            {"Channels": {"strength": strength, "macs": 0.5}},
            20 - n // 3,
        )
        for n, strength in enumerate(strengths)
    )
    comparison = Comparison(DENSE, DENSE, history=history, metrics_before={"val_acc": 0.3})
    left, right = comparison.plot("metrics").axes
    assert list(left.lines[0].get_ydata()) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert [line.get_xdata()[0] for line in left.lines[2:]] == [30]  # parameters became fewer
    assert left.patches[0].get_extents().transformed(left.transData.inverted()).x0 == pytest.approx(10)
    assert list(right.lines[0].get_ydata()) == list(strengths)
    assert right.lines[0].get_label() == "Channels (macs 0.5)"
    assert "metrics" not in replace(comparison, history=history[:1]).pictures


def test_latencies_have_their_spread():
    drawn = Comparison(DENSE, DENSE, (SLOW, FAST)).plot("latencies")
    assert widths(drawn) == pytest.approx([2, 1])
    integers = model(layer("a", bits=8, scales=1), layer("b"))
    assert "latencies" not in Comparison(DENSE, integers, (SLOW, FAST)).pictures


def test_a_picture_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="need name as one of the pictures bytes, got 'zeros'"):
        Comparison(DENSE, DENSE).plot("zeros")
    with pytest.raises(ValueError, match="need name as one of the pictures bytes, got 'pie'"):
        Comparison(DENSE, DENSE).plot("pie")


def test_names_are_text():
    hostile = "<script>$x^$\x1b[31m\u4e2d"
    drawn = Comparison(DENSE, model(layer(hostile, nonzeros=2), size=50)).plot("zeros")
    page = svg_of(drawn, "p1")
    assert "<script>" not in page
    assert "&lt;script&gt;$x^$\\x1b[31m\u4e2d" in page
    assert "currentColor" in page
    assert set(re.findall(r'id="([^-"]*)', page)) == {"p1"}


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'lightning-compress\[plots\]'"):
        Comparison(DENSE, DENSE).plot()
