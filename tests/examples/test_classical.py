import numpy as np
import pytest
import torch
from sklearn import linear_model, svm
from sklearn.datasets import load_digits
from sklearn.multiclass import OneVsRestClassifier

from examples.classical import LinearSVM, LogisticRegression, TableData
from examples.classical.modules import hinge_loss
from lightning_compress import PruningCallback
from tests.support.runs import trainer

L2 = 1e-2


@pytest.fixture(scope="module")
def data():
    table = TableData(load_digits, batch_size=2000)  # full batches
    table.setup("fit")
    return table


def fit(module, data, epochs, callbacks=()):
    trainer(*callbacks, max_epochs=epochs, limit_val_batches=0).fit(module, data)


def predictions(module, rows):
    with torch.no_grad():
        return module(rows).argmax(1).numpy()


# scikit-learn minimizes C sum(loss) + |W|^2 / 2.
@pytest.mark.parametrize(
    ("module", "reference"),
    [
        (LogisticRegression, lambda n: linear_model.LogisticRegression(C=1 / (n * L2), max_iter=1000)),
        (LinearSVM, lambda n: OneVsRestClassifier(svm.SVC(kernel="linear", C=1 / (n * L2)))),
    ],
)
def test_the_dense_model_is_that_of_scikit_learn(data, module, reference):
    torch.manual_seed(0)
    ours = module(64, 10, lr=0.05, l2=L2)
    fit(ours, data, 300)
    (train, train_labels), (test, test_labels) = data.train, data.test
    theirs = reference(len(train)).fit(train.numpy(), train_labels.numpy())
    accuracy = (predictions(ours, test) == test_labels.numpy()).mean()
    assert accuracy == pytest.approx(theirs.score(test.numpy(), test_labels.numpy()), abs=0.01)
    agreement = (predictions(ours, test) == theirs.predict(test.numpy())).mean()
    assert agreement > 0.985


@pytest.mark.parametrize("module", [LogisticRegression, LinearSVM])
def test_the_pruned_model_is_sparse_and_nearly_as_good(data, module):
    torch.manual_seed(0)
    dense, pruned = module(64, 10, lr=0.05, l2=L2), module(64, 10, lr=0.05, l2=L2)
    fit(dense, data, 100)
    fit(pruned, data, 100, [PruningCallback(0.5)])
    rows, labels = data.test
    accuracies = [(predictions(model, rows) == labels.numpy()).mean() for model in (dense, pruned)]
    assert accuracies[1] > accuracies[0] - 0.02
    assert (pruned.linear.weight == 0).sum() == 320


def test_hinge_loss_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(5, 3)), rng.integers(0, 3, 5)
    expected = np.mean(
        [
            sum(max(0.0, 1 - (1 if c == label else -1) * row[c]) for c in range(3))
            for row, label in zip(scores, labels, strict=True)
        ]
    )
    assert hinge_loss(torch.tensor(scores), torch.tensor(labels)).item() == pytest.approx(expected)
