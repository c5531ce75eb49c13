import json
from dataclasses import replace

import pytest

from lightning_compress.macs import Macs
from lightning_compress.report.comparisons import Comparison, remarks
from lightning_compress.report.measures.profiles import LayerProfile, ModelProfile
from lightning_compress.report.views.tables import as_dict, markdown, rich_table, tables
from lightning_compress.timing import Latency

DENSE = ModelProfile(
    (LayerProfile("fc.weight", (10, 20), 200, 190, 800, 700), LayerProfile("fc.bias", (10,), 10, 10, 40, 70)),
    state_bytes=860,
    archive_bytes=750,
    macs=Macs(200, {"fc": 200}, "1 x 20"),
)
PRUNED = replace(DENSE, layers=(replace(DENSE.layers[0], nonzeros=20, distinct=21, archive_bytes=90), DENSE.layers[1]))
NARROW = ModelProfile(
    (LayerProfile("fc.weight", (5, 20), 100, 95, 400, 350),), 400, 350, Macs(100, {"fc": 100}, "1 x 20")
)
SLOW, FAST = Latency(2e-3, 1.9e-3, 2.1e-3, "cpu"), Latency(1e-3, 0.9e-3, 1.1e-3, "cpu")


def rows(comparison, title="Model"):
    (table,) = [table for table in tables(comparison) if table.title == title]
    return {row[0]: row[1:] for row in table.rows}


def test_what_became_larger_is_called_so():
    whole = rows(Comparison(PRUNED, replace(DENSE, archive_bytes=1500)))
    assert whole["non-zero parameters"] == ("30", "210", "7.00x more")
    assert whole["archive (.lcz), bytes"] == ("750", "1,500", "2.00x more")


def test_what_is_not_finite_is_null_in_json():
    metrics = {"val_loss": float("nan"), "val_snr": float("inf"), "val_acc": 0.5}
    methods = {"Told": {"values": (float("-inf"), 1.0)}}
    written = json.dumps(as_dict(Comparison(DENSE, PRUNED, metrics_after=metrics, methods=methods)), allow_nan=False)
    assert json.loads(written)["metrics_after"] == {"val_loss": None, "val_snr": None, "val_acc": 0.5}
    assert json.loads(written)["methods"] == {"Told": {"values": [None, 1.0]}}


def test_zeros_bytes_macs_and_latency_stand_apart():
    whole = rows(Comparison(DENSE, replace(PRUNED, archive_bytes=150), (SLOW, SLOW)))
    assert whole["parameters"] == ("210", "210", "")
    assert whole["non-zero parameters"] == ("210", "30", "7.00x fewer")
    assert whole["zeros"] == ("0.00%", "85.71%", "")
    assert whole["state dict, bytes"] == ("860", "860", "")
    assert whole["archive (.lcz), bytes"] == ("750", "150", "5.00x fewer")
    assert whole["MACs, input 1 x 20"] == ("200", "200", "")
    assert whole["latency in PyTorch on cpu, ms"] == ("2.000 (1.900-2.100)", "2.000 (1.900-2.100)", "no difference")


def test_layers():
    layers = rows(Comparison(DENSE, PRUNED), "Layers")
    assert layers["fc.weight"] == (
        "10 x 20", "200", "200 → 20", "0.0% → 90.0%", "190 → 21", "800", "700 → 90", "200"
    )  # fmt: skip
    assert layers["fc.bias"] == ("10", "10", "10", "0.0%", "10", "40", "70", "")
    assert layers["total, with buffers"][:4] == ("", "210", "210 → 30", "0.0% → 85.7%")


def test_a_removed_parameter_and_a_new_shape():
    layers = rows(Comparison(DENSE, NARROW), "Layers")
    assert layers["fc.weight"][:2] == ("10 x 20 → 5 x 20", "200 → 100")
    assert layers["fc.weight"][-1] == "200 → 100"
    assert layers["fc.bias"][1] == "10 → none"


def test_zeros_are_said_not_to_be_faster():
    assert "this sparsity cannot make this runtime faster" in remarks(Comparison(DENSE, PRUNED))[0]
    assert remarks(Comparison(DENSE, DENSE)) == []
    assert remarks(Comparison(DENSE, NARROW)) == []


@pytest.mark.parametrize(
    ("after", "latencies", "said", "cell"),
    [
        (PRUNED, (SLOW, replace(SLOW, lower=1.5e-3)), "no difference was measured", "no difference"),
        (PRUNED, (SLOW, FAST), "not due to fewer multiply-accumulates", "2.00x faster"),
        (NARROW, (SLOW, FAST), "before and after in turns.", "2.00x faster"),
        (NARROW, (FAST, SLOW), "before and after in turns.", "2.00x slower"),
    ],
)
def test_latency_is_claimed_only_where_it_was_measured(after, latencies, said, cell):
    comparison = Comparison(DENSE, after, latencies)
    assert said in " ".join(remarks(comparison))
    assert rows(comparison)["latency in PyTorch on cpu, ms"][-1] == cell


def test_missing_costs_say_what_they_need():
    whole = rows(Comparison(*(replace(one, macs=None) for one in (DENSE, PRUNED)), None, "needs example_input"))
    assert whole["MACs"] == whole["latency"] == ("needs example_input", "needs example_input", "")


def test_what_is_known_of_the_dense_model_stands_where_the_other_was_not_measured():
    found = Comparison(DENSE, replace(PRUNED, macs=None), uncosted="not measured: resumed run")
    (total,) = [cells[0] for name, cells in rows(found).items() if name.startswith("MACs")]
    assert total == "200"
    assert rows(found, "Layers")["fc.weight"][-1] == "200 → ?"


def test_a_long_reason_is_told_once():
    found = Comparison(replace(DENSE, macs=None), PRUNED, uncosted="need a forward method, " + 200 * "x")
    assert markdown(found).count("need a forward method") == 1
    assert "- Missing MACs and latency: need a forward method" in markdown(found)


def test_metrics_before_say_which_model_they_are_of():
    comparison = Comparison(
        DENSE,
        PRUNED,
        metrics_before={"acc": 0.5},
        metrics_after={"acc": 0.75, "loss": 1.0},
        compared_with="the baseline",
    )
    whole = rows(comparison)
    assert whole["acc"] == ("0.5000", "0.7500", "")
    assert whole["loss"] == ("", "1.0000", "")
    assert remarks(comparison)[-1] == "The metrics before are those of the baseline."
    assert "CompressionReport(baseline=" in remarks(replace(comparison, metrics_before={}))[-1]


def test_markdown_has_every_row_and_escapes_bars():
    comparison = Comparison(DENSE, PRUNED, methods={"Callback": {"a|b": 1234567, "strength": 0.123456}})
    page = markdown(comparison)
    assert "| Callback | a\\|b | 1,234,567 |" in page
    assert "| Callback | strength | 0.1235 |" in page
    for line in page.splitlines():
        if line.startswith("| fc.weight"):
            assert line.count("|") == 10
    assert all(f"## {title}" in page for title in ("Model", "Layers", "Methods"))


def test_json_has_the_numbers():
    values = json.loads(json.dumps(as_dict(Comparison(DENSE, PRUNED, (SLOW, FAST)))))
    assert values["totals"]["after"] == {"parameters": 210, "nonzeros": 30, "sparsity": pytest.approx(6 / 7)}
    assert values["before"]["layers"][0]["distinct"] == 190
    assert values["latencies"][1]["median"] == 1e-3
    assert values["remarks"]


def test_terminal_table_has_the_same_cells():
    for table in tables(Comparison(DENSE, PRUNED)):
        drawn = rich_table(table)
        assert [column.header for column in drawn.columns] == list(table.heads)
        assert drawn.row_count == len(table.rows)


def test_rows_and_columns_stand_where_they_say_something():
    integers = replace(DENSE, layers=tuple(replace(layer, bits=8, scales=1) for layer in DENSE.layers))
    comparison = Comparison(DENSE, integers)
    assert "zeros" not in rows(comparison)
    (table,) = [table for table in tables(comparison) if table.title == "Layers"]
    assert table.heads == ("parameter", "shape", "parameters", "distinct", "bits", "state dict", "archive", "MACs")
    (table,) = [table for table in tables(Comparison(DENSE, PRUNED)) if table.title == "Layers"]
    assert "bits" not in table.heads


def deep(layers, nonzeros):
    profiles = [
        LayerProfile(f"blocks.{n}.fc.weight", (4, 5), nonzeros + n % 2, distinct=9, state_bytes=80, archive_bytes=20)
        for n in range(layers)
    ]
    macs = Macs(100 * layers, {f"blocks.{n}.fc": 100 for n in range(layers)}, "1 x 5")
    return ModelProfile(tuple(profiles), 80 * layers, 20 * layers + 9, macs)


def test_many_layers_are_grouped_by_their_pattern():
    comparison = Comparison(deep(42, 19), deep(42, 2))
    (table,) = [table for table in tables(comparison, grouped=True) if table.title == "Layers"]
    assert table.rows[0] == (
        "blocks.*.fc.weight (42)", "4 x 5", "840", "819 → 105", "2.5% → 87.5%", "9", "3,360", "840", "4,200"
    )  # fmt: skip
    assert len(table.rows) == 2
    assert len(rows(comparison, "Layers")) == 43
