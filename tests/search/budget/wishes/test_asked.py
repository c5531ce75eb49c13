"""The arguments of a budget: wishes that cannot come true together, and arguments without their wish."""

import pytest

from lightning_compress import CompressionBudget
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.schedules import Cubic, Linear

REFUSED = [
    ({}, "need a wish, bytes, macs, latency or max_drop, got none: name the size that"),
    ({"bytes": 9, "max_drop": 0.1}, "need one wish for the file, .* got bytes=9 and max_drop=0.1: name the size"),
    (
        {"macs": 0.5, "latency": 0.5},
        "need one wish for the speed, macs or latency, got macs=0.5 and latency=0.5: leave",
    ),
    ({"macs": 0.5, "max_drop": 0.1}, "need max_drop as the only wish, got macs=0.5 and max_drop=0.1: .* fit twice"),
    (
        {"latency": 0.5, "max_drop": 0.1},
        "need max_drop as the only wish, got latency=0.5 and max_drop=0.1: .* fit twice",
    ),
    ({"bytes": 9, "patience": 3}, "need max_drop= to compare a metric, got patience=3 without it: leave it out"),
    ({"macs": 0.5, "monitor": "f1"}, "need max_drop= to compare a metric, got monitor='f1' without it: leave it out"),
    ({"macs": 0.5, "batch_size": 8}, "need latency= to measure it, got batch_size=8 without it: leave it out"),
    ({"bytes": 9, "runtime": OnnxRuntime()}, r"need latency= to measure it, got runtime=OnnxRuntime\(.*\) without it"),
    (
        {"bytes": 9, "round_to": 8},
        "need macs= or latency= to remove channels, got round_to=8 without them: leave it out",
    ),
    ({"macs": 1.0}, "need 0 < macs < 1, got macs=1.0"),
    ({"macs": 0.0, "bytes": 9}, "need 0 < macs < 1, got macs=0.0"),
    ({"latency": 2}, "need 0 < latency < 1, got latency=2"),
    ({"macs": 0.5, "bytes": 0}, "need bytes >= 1, got bytes=0"),
    ({"latency": 0.5, "batch_size": 0}, "need batch_size >= 1, got batch_size=0"),
    ({"macs": 0.5, "round_to": 0}, "need round_to >= 1, got round_to=0"),
]


@pytest.mark.parametrize(("options", "match"), REFUSED, ids=str)
def test_refused(options, match):
    with pytest.raises(ValueError, match=match):
        CompressionBudget(**options)


def test_the_name_of_a_runtime_is_refused():
    with pytest.raises(
        TypeError, match="need runtime as a function or an object, got 'onnxruntime': import it and pass"
    ):
        CompressionBudget(latency=0.5, runtime="onnxruntime")


@pytest.mark.parametrize(
    ("wishes", "schedule"),
    [
        ({"bytes": 9}, Linear(0.15, 0.85)),
        ({"bytes": 9, "macs": 0.5}, Linear(0.15, 0.85)),
        ({"macs": 0.5}, Cubic(0.15, 0.7)),
        ({"max_drop": 0.1}, Linear(0.0, 0.7)),
    ],
    ids=str,
)
def test_schedules_by_default(wishes, schedule):
    assert CompressionBudget(**wishes).schedule == schedule
