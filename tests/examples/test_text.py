import pytest
import torch

from examples.text import DocstringData, Transformer


@pytest.fixture(scope="module")
def data():
    module = DocstringData(packages=("numpy", "sklearn"), count=200, words=512, length=16)
    module.setup("fit")
    return module


def test_docstrings_are_numbered_words_with_their_package(data):
    texts = torch.cat([part for part, _ in data.splits])
    labels = torch.cat([part for _, part in data.splits])
    assert texts.shape == (400, 16)
    assert labels.bincount().tolist() == [200, 200]
    assert texts.min() >= 0
    assert texts.max() < 512
    assert bool((texts[:, :12] > 0).all())  # no docstring is shorter
    assert len(data.splits[0][0]) > 200


def test_a_file_is_in_one_split_and_the_split_is_fixed(data):
    again = DocstringData(packages=("numpy", "sklearn"), count=200, words=512, length=16, seed=1)
    again.setup("fit")
    for one, other in zip(data.splits, again.splits, strict=True):
        assert torch.equal(one[0], other[0])


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        (("numpy", "no_such_package"), "need installed packages, got 'no_such_package'"),
        (("json",), "need 200 docstrings"),
    ],
)
def test_what_has_no_docstrings_is_refused(packages, message):
    with pytest.raises(ValueError, match=message):
        DocstringData(packages=packages, count=200).setup("fit")


def test_padding_does_not_count():
    torch.manual_seed(0)
    net = Transformer(words=32, length=8, width=16, heads=2).eval()
    texts = torch.tensor([[3, 5, 7, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        before = net(texts)
        net.words.weight[0] += 100.0
        torch.testing.assert_close(net(texts), before)
        assert net(torch.zeros(1, 8, dtype=torch.long)).isfinite().all()


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="need heads that divide width=16, got heads=3"):
        Transformer(width=16, heads=3)
