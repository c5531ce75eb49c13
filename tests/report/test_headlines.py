from dataclasses import replace

import pytest

from lightning_compress.report.comparisons import INCOMING, Comparison, remarks
from lightning_compress.report.headlines import headlines, is_worse
from lightning_compress.report.measures.deployments import Deployment
from lightning_compress.report.measures.profiles import LayerProfile, ModelProfile
from lightning_compress.timing import Latency


def layer(name, nonzeros, shape=(4, 5)):
    return LayerProfile(name, shape, nonzeros=nonzeros, distinct=3, state_bytes=80, archive_bytes=20)


DENSE = ModelProfile((layer("a", 20), layer("b", 20), layer("bias", 5, (5,))), state_bytes=180, archive_bytes=60)


@pytest.mark.parametrize(
    ("name", "before", "after", "worse"),
    [
        ("val_acc", 0.9, 0.8, True),
        ("val_acc", 0.8, 0.9, False),
        ("val/loss", 0.3, 0.4, True),
        ("Test RMSE", 2.0, 1.0, False),
        ("map_50", 0.5, 0.4, True),
        ("val_acc", 0.90001, 0.90000, False),  # the same at four digits
        ("throughput", 10.0, 5.0, False),  # no word says which is better
        ("loss_accuracy", 10.0, 5.0, False),
    ],
)
def test_the_direction_of_a_metric(name, before, after, worse):
    assert is_worse(name, before, after, {}) == worse


def test_a_monitor_knows_the_direction_better_than_the_name():
    assert is_worse("throughput", 10.0, 5.0, {"throughput": "max"})
    assert not is_worse("val_loss", 0.3, 0.4, {"val_loss": "max"})


def test_losses_stand_before_the_size():
    after = ModelProfile((layer("a", 0), layer("b", 2), layer("bias", 0, (5,))), state_bytes=180, archive_bytes=30)
    found = headlines(
        Comparison(
            DENSE,
            after,
            metrics_before={"val_acc": 0.9},
            metrics_after={"val_acc": 0.1},
            unvalidated=1200,
            methods={
                "PruningCallback": {"strength": 0.5},
                "Other": {"name": "x"},
                "Budget": {"missed": "Budget missed latency=0.5 by 0.1"},
                "Brought": {"missed": "Budget missed latency=0.5 by 0.1"},
            },
            failures={"model.onnx": "need 1, got 2"},
        )
    )
    assert found == [
        "LOSS: model.onnx was not written: need 1, got 2",
        "LOSS: every weight of a is zero, so nothing of the input passes there.",
        "LOSS: the run ended before the schedule of PruningCallback, at strength 0.50 of 1.",
        "LOSS: Budget missed latency=0.5 by 0.1.",
        "LOSS: the last validation was 1,200 steps before the end of the run, so the metrics are those of an earlier "
        "model.",
        "LOSS: val_acc fell from 0.9000 to 0.1000.",
        "SMALLER: 2.0x, 30 bytes in the archive instead of 60, 95.6% zeros.",
    ]


def test_a_layer_that_was_zero_before_is_no_loss():
    dense = ModelProfile((layer("a", 0),), state_bytes=80, archive_bytes=20)
    assert len(headlines(Comparison(dense, dense))) == 1


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (0.899, "COST: val_acc fell from 0.9000 to 0.8990."),
        (0.881, "LOSS: val_acc fell from 0.9000 to 0.8810."),
        (0.91, "KEPT: val_acc went from 0.9000 to 0.9100."),
        (0.90001, "KEPT: val_acc stayed at 0.9000."),
        (float("nan"), "LOSS: val_acc is not finite."),
    ],
)
def test_a_small_loss_is_a_cost_and_a_sharp_one_an_alarm(after, said):
    found = headlines(Comparison(DENSE, DENSE, metrics_before={"val_acc": 0.9}, metrics_after={"val_acc": after}))
    assert found[0] == said


SLOW, FAST = Latency(2e-3, 1.9e-3, 2.1e-3, "cpu"), Latency(1e-3, 0.9e-3, 1.1e-3, "cpu")


def test_a_file_that_is_slower_is_a_loss():
    found = Deployment("m.onnx", "ORT", 100, 300, 2, (), (FAST, SLOW), (FAST, SLOW), 64, None, 0.0)
    assert headlines(Comparison(DENSE, DENSE, deployments=(found,)))[0] == (
        "LOSS: m.onnx is slower than the dense model in ORT on the example and 64 samples "
        "(1.000 → 2.000 ms, 1.000 → 2.000 ms)."
    )
    unclear = replace(found, latencies=None, batch_latencies=(FAST, replace(SLOW, lower=1.1e-3)))
    assert headlines(Comparison(DENSE, DENSE, deployments=(unclear,)))[0] == (
        "COST: m.onnx is no faster than the dense model in ORT on 64 samples "
        "(no difference was measured: 1.000 → 2.000 ms)."
    )
    mixed = replace(found, latencies=(SLOW, FAST))
    assert headlines(Comparison(DENSE, DENSE, deployments=(mixed,)))[:2] == [
        "COST: m.onnx is slower than the dense model in ORT on 64 samples (1.000 → 2.000 ms).",
        "FASTER: m.onnx in ORT, 2.00x on the example.",
    ]


def test_a_name_of_the_baseline_that_nothing_logged_is_a_loss():
    found = Comparison(DENSE, DENSE, metrics_before={"acc": 0.9}, metrics_after={"val_acc": 0.9, "val_loss": 0.1})
    assert headlines(found)[0] == "LOSS: no validation logged acc, which baseline has: did you mean val_acc?"
    assert headlines(replace(found, metrics_after={}))[0] == "LOSS: no validation logged acc, which baseline has."


def test_a_model_that_learned_in_fit_has_not_kept_its_metric():
    found = Comparison(DENSE, DENSE, metrics_before={"val_acc": 0.1472}, metrics_after={"val_acc": 0.4639})
    assert any("KEPT" in line for line in headlines(replace(found, compared_with="the baseline")))
    assert not any("val_acc" in line for line in headlines(replace(found, compared_with=INCOMING)))
    little = replace(found, compared_with=INCOMING, metrics_after={"val_acc": 0.15})
    assert headlines(little)[0] == "KEPT: val_acc went from 0.1472 to 0.1500."


def test_pytorch_is_faster_where_no_integers_are_simulated():
    assert "FASTER: 2.00x in PyTorch on cpu." in headlines(Comparison(DENSE, DENSE, (SLOW, FAST)))
    integers = replace(DENSE, layers=tuple(replace(layer, bits=8) for layer in DENSE.layers))
    assert len(headlines(Comparison(DENSE, integers, (SLOW, FAST)))) == 1


def test_missing_metrics_are_told():
    assert "no validation of this run logged any" in remarks(Comparison(DENSE, DENSE, steps=3))[-1]
