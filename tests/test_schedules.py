import pickle

import numpy as np
import pytest

from lightning_compress.schedules import Constant, Cosine, Cubic, Exponential, Linear, Step, check_schedule

RAMPS = [Linear, Cubic, Cosine, Exponential]


@pytest.mark.parametrize("ramp", RAMPS)
def test_end_points_and_monotony(ramp):
    schedule = ramp(0.2, 0.7)
    strengths = np.array([schedule(t) for t in np.linspace(0, 1, 201)])
    assert schedule(0.0) == schedule(0.2) == 0.0
    assert schedule(0.7) == schedule(1.0) == 1.0
    assert (np.diff(strengths) >= 0).all()
    assert ((strengths > 0) & (strengths < 1)).any()


@pytest.mark.parametrize("ramp", RAMPS)
def test_the_whole_run_by_default(ramp):
    assert (ramp()(0.0), ramp()(1.0)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Linear(0.5, 1.0), [0.0, 0.0, 0.5, 1.0]),
        (Cubic(0.0, 1.0), 1 - (1 - np.array([0.0, 0.5, 0.75, 1.0])) ** 3),
        (Cosine(0.0, 1.0), 0.5 - 0.5 * np.cos(np.pi * np.array([0.0, 0.5, 0.75, 1.0]))),
        (Exponential(0.0, 1.0, 2.0), (1 - np.exp(-2 * np.array([0.0, 0.5, 0.75, 1.0]))) / (1 - np.exp(-2))),
        (Step(0.5), [0.0, 1.0, 1.0, 1.0]),
        (Constant(), [1.0, 1.0, 1.0, 1.0]),
    ],
    ids=str,
)
def test_curves(schedule, expected):
    np.testing.assert_allclose([schedule(t) for t in (0.0, 0.5, 0.75, 1.0)], expected, atol=1e-12)


@pytest.mark.parametrize("ramp", RAMPS)
@pytest.mark.parametrize(("begin", "until"), [(0.8, 0.2), (0.5, 0.5), (-0.1, 0.5), (0.5, 1.1)])
def test_bad_ramps(ramp, begin, until):
    with pytest.raises(ValueError, match=f"need 0 <= begin < until <= 1, got begin={begin}, until={until}"):
        ramp(begin, until)


def test_bad_values():
    with pytest.raises(ValueError, match="need 0 <= at <= 1, got at=2"):
        Step(2)
    with pytest.raises(ValueError, match="need 0 <= value <= 1, got value=-1"):
        Constant(-1)
    with pytest.raises(ValueError, match="need 0 < rate < inf, got rate=0"):
        Exponential(rate=0)


@pytest.mark.parametrize("kind", [Constant, Step, Linear, Exponential])
@pytest.mark.parametrize("value", ["0.5", True, None, float("nan")])
def test_values_are_numbers(kind, value):
    (argument, *_) = kind.__dataclass_fields__
    with pytest.raises((TypeError, ValueError), match=f"(need {argument} as a number, got |got {argument}=){value!r}"):
        kind(value)


@pytest.mark.parametrize(
    ("schedule", "error", "message"),
    [
        (Cubic, TypeError, "need schedule as an object, got the class Cubic"),
        ("linear", TypeError, "need schedule as a function or an object, got 'linear'"),
        (lambda progress: float("nan"), ValueError, r"strengths in \[0, 1\] that ends at 1, got schedule=<function"),
        (Constant(0.5), ValueError, r"strengths in \[0, 1\] that ends at 1, got schedule=Constant\(value=0.5\)"),
    ],
)
def test_schedules_of_a_method_end_at_one(schedule, error, message):
    with pytest.raises(error, match=message):
        check_schedule(schedule)


def test_plain_values():
    schedule = Cubic(0.1, 0.7)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert repr(schedule) == "Cubic(begin=0.1, until=0.7)"
