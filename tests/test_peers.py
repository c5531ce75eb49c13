"""The comparison with other libraries: its recipe is one for all, and its page leaves nobody out."""

import json

import pytest
import torch

from benchmarks.peers.__main__ import main
from benchmarks.peers.environments import PEERS
from benchmarks.peers.judge import zeros_of
from benchmarks.peers.page import between, page, short_table
from benchmarks.peers.recipe import RECIPES, Run, data_of, plain, quick
from benchmarks.peers.trainers import plain as plain_in_trainer
from benchmarks.peers.worker import lines_of_user_code
from tests.support.runs import resumes

pytestmark = resumes


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    main(["ours", "torch_prune", "--rows", "pruning", "--quick", "--seeds", "1", "--folder", str(folder)])
    return folder


@pytest.fixture(scope="module")
def records(measured):
    return [json.loads(line) for line in (measured / "peers.jsonl").read_text().splitlines()]


def test_a_quick_comparison_has_all_figures(records):
    assert [one for one in records if "error" in one] == []
    trained = {(one["peer"], one["sparsity"]): one for one in records if one["kind"] == "train"}
    assert len(trained) == 3
    for (peer, sparsity), one in trained.items():
        weights = 784 * 300 + 300 * 100 + 100 * 10
        assert one["zeros"] == pytest.approx(sparsity, abs=(1 if peer == "ours" else 20) / weights), peer
        assert 0 < one["lcz"] < one["bytes"]
    assert all(trained[peer, 0.9]["resumed"] == pytest.approx(0.9, abs=1e-4) for peer in ("ours", "torch_prune"))
    assert {one["peer"] for one in records if "step_ratio" in one} == {"ours", "torch_prune"}


def test_figures_that_are_recorded_are_not_measured_again(measured, records, monkeypatch):
    def refuse(*args):
        raise AssertionError("measured again")

    monkeypatch.setattr("benchmarks.peers.__main__.work", refuse)
    main(["ours", "--rows", "pruning", "--quick", "--seeds", "1", "--folder", str(measured)])
    assert (measured / "peers.jsonl").read_text().count("\n") == len(records)


def test_the_page_has_a_line_for_each_peer_and_says_why_one_is_missing(records):
    failed = {"row": "pruning", "peer": "fasterai", "kind": "train", "seed": 0, "error": "no torchvision"}
    text = page([*records, failed], "1 May 2026")
    for title in ("no pruning", "`PruningCallback`", "`torch.nn.utils.prune` by hand"):
        assert f"\n| {title} | " in text
    assert "- fasterai: no torchvision" in text
    assert "Not measured yet: Lightning's `ModelPruning` (pruning), " in text
    assert short_table(records).startswith("Accuracy in %, one seed, so that small differences mean nothing:\n\n|")


def test_the_plain_loop_and_the_trainer_compute_the_same():
    recipe = quick(RECIPES["pruning"])
    by_hand, in_trainer = (Run(recipe, data_of(recipe), seed=3) for _ in range(2))
    plain(by_hand)
    plain_in_trainer(in_trainer)
    states = by_hand.model.state_dict(), in_trainer.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_zeros_are_counted_in_matrices_and_kernels():
    state = {"weight": torch.tensor([[0.0, 1.0], [2.0, 3.0]]), "bias": torch.zeros(2)}
    assert zeros_of(state, state) == 0.25


@pytest.mark.parametrize("peer", PEERS, ids=lambda one: f"{one.row}-{one.name}")
def test_each_peer_marks_its_user_code(peer):
    counted = lines_of_user_code(peer.row, peer.name)
    assert counted == 0 if peer.name == "dense" else 1 < counted < 25


def test_a_table_is_replaced_between_its_comments():
    text = "a\n<!-- peers -->\nold\n<!-- /peers -->\nb\n"
    assert between(text, "peers", "| new |\n") == "a\n<!-- peers -->\n\n| new |\n\n<!-- /peers -->\nb\n"
    with pytest.raises(ValueError, match="need one <!-- peers --> and one <!-- /peers -->, got 0 and 0"):
        between("a", "peers", "b")
