import pytest
import torch
from transformers import AutoTokenizer

from examples.adapters import EncodedDocstrings, Encoder
from examples.adapters.models import source
from tests.support.encoders import write_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoders") / "tiny"
    write_encoder(path)
    return str(path)


def test_docstrings_are_word_pieces_with_their_package(folder):
    data = EncodedDocstrings(folder, packages=("numpy", "sklearn"), count=200, length=48)
    data.setup("fit")
    texts = torch.cat([part for part, _ in data.splits])
    assert texts.shape == (400, 48)
    assert torch.cat([labels for _, labels in data.splits]).bincount().tolist() == [200, 200]
    read = AutoTokenizer.from_pretrained(folder).batch_decode(texts, skip_special_tokens=True)
    assert not any("numpy" in text or "sklearn" in text for text in read)
    assert sum("array" in text or "the" in text for text in read) > 100


def test_lora_and_the_head_learn_and_padding_does_not_count(folder):
    net = Encoder(3, folder, rank=2).eval()
    learns = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert {"fc.weight", "fc.bias"} < learns
    assert all("lora_" in name for name in learns - {"fc.weight", "fc.bias"})
    assert len(learns) == 2 + 2 * 6 * 2  # two adapters for each of six linear layers in two blocks
    texts = torch.tensor([[2, 9, 7, 3]])
    with torch.no_grad():
        wider = net(torch.nn.functional.pad(texts, (0, 5)))
        torch.testing.assert_close(net(texts), wider)
        assert net(torch.zeros(1, 4, dtype=torch.long)).isfinite().all()


def test_an_installed_package_may_hold_the_encoder(tmp_path, monkeypatch):
    write_encoder(tmp_path / "an_encoder" / "model")
    (tmp_path / "an_encoder" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert source("an_encoder") == str(tmp_path / "an_encoder" / "model")
    assert source("sentence-transformers/all-MiniLM-L6-v2") == "sentence-transformers/all-MiniLM-L6-v2"
    assert Encoder(2, "an_encoder").fc.weight.shape == (2, 32)
