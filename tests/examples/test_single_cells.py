import pytest
import torch

from examples.classifier import Classifier
from examples.single_cells import CellData, GeneNet
from lightning_compress import Block, PruningCallback
from tests.support.cells import write_cells
from tests.support.runs import trainer


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    write_cells(path, genes=40)
    module = CellData(str(path), batch_size=10)
    module.setup("fit")
    return module


def test_cells_are_split_once(data):
    (train, train_labels), (val, val_labels) = data.train, data.val
    assert (train.shape, val.shape) == ((50, 40), (20, 40))
    assert torch.cat([train_labels, val_labels]).bincount().tolist() == [7] * 10
    assert len(torch.cat([train, val]).unique(dim=0)) == 70
    assert (data.genes[3], data.types[-1]) == ("gene3", "type9")


def test_genes_are_pruned_with_all_their_weights(data):
    module = Classifier(GeneNet(genes=40, hidden=8))
    pruning = PruningCallback(0.9, pattern=Block(8, 1), include=("model.genes",))
    trainer(pruning, max_epochs=4, limit_val_batches=0).fit(module, data)
    columns = (module.model.genes.weight != 0).sum(0)
    assert columns.bincount(minlength=9).tolist() == [36, 0, 0, 0, 0, 0, 0, 0, 4]


@pytest.mark.parametrize("path", ["nowhere.h5ad", None])
def test_a_missing_file_says_how_to_get_it(path, monkeypatch):
    monkeypatch.setattr("examples.single_cells.data.find_spec", lambda name: None)
    message = f"need the cells that scanpy ships, got path={path!r}: pip install h5py, and pip install --no-deps scanpy"
    with pytest.raises(FileNotFoundError, match=message):
        CellData(path).setup("fit")
