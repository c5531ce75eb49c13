import io
from urllib.error import URLError

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from examples.fashion_mnist import FashionClassifier, FashionData, LeNet5, LeNet300, ResNet, files
from lightning_compress import PruningCallback
from tests.support.fashion import ARRAYS, idx, write_files


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path, monkeypatch):
    """The images of the system, if there are some, and the network play no part."""

    def refuse(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(files, "_DEBIAN", tmp_path / "none")
    monkeypatch.setattr(files.urllib.request, "urlopen", refuse)


@pytest.fixture
def folder(tmp_path):
    write_files(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ARRAYS)
def test_idx_files_are_read_packed_or_plain(folder, name):
    plain = folder / name
    plain.write_bytes(idx(ARRAYS[name]))
    for path in (plain, folder / f"{name}.gz"):
        assert np.array_equal(files.read_idx(path).numpy(), ARRAYS[name])


def test_a_damaged_idx_file_is_refused(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(b"PNG...")
    with pytest.raises(ValueError, match=r"need an idx file of unsigned bytes, got .* starts with '50 4e 47 2e'"):
        files.read_idx(path)
    path.write_bytes(idx(ARRAYS["train-labels-idx1-ubyte"])[:-1])
    with pytest.raises(ValueError, match=r"need 48 bytes for shape \[40\], got 47"):
        files.read_idx(path)


def test_files_are_found_in_each_layout(folder, tmp_path, monkeypatch):
    assert {path.parent for path in files.find(folder).values()} == {folder}
    torchvision = tmp_path / "FashionMNIST" / "raw"
    torchvision.mkdir(parents=True)
    for name in ARRAYS:
        (folder / f"{name}.gz").rename(torchvision / f"{name}.gz")
    assert {path.parent for path in files.find(folder).values()} == {torchvision}
    monkeypatch.setattr(files, "_DEBIAN", torchvision)
    assert {path.parent for path in files.find(tmp_path / "elsewhere").values()} == {torchvision}


def test_three_files_are_not_enough(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    assert files.find(folder) is None


def test_a_download_is_checked(tmp_path, monkeypatch):
    with pytest.raises(OSError, match=r"need Fashion-MNIST, got no train-images.*no network.*name the folder"):
        FashionData(str(tmp_path)).prepare_data()
    monkeypatch.setattr(files.urllib.request, "urlopen", lambda *args, **kwargs: io.BytesIO(b"an error page"))
    with pytest.raises(ValueError, match=r"need train-images-idx3-ubyte[.]gz with MD5 8d4fb7e6"):
        FashionData(str(tmp_path)).prepare_data()
    assert not list(tmp_path.iterdir())


def test_images_are_normalized_and_held_out(folder):
    data = FashionData(str(folder), images=30, holdout=10)
    data.prepare_data()
    data.setup("fit")
    raw = ARRAYS["train-images-idx3-ubyte"]
    torch.testing.assert_close(data.train[0][:, 0].numpy() * 0.3530 + 0.2860, (raw[:20] / 255).astype(np.float32))
    assert data.val[1].tolist() == ARRAYS["train-labels-idx1-ubyte"][20:30].tolist()
    assert data.test[1].tolist() == ARRAYS["t10k-labels-idx1-ubyte"].tolist()
    with pytest.raises(ValueError, match="need 0 <= holdout < images <= 60000, got holdout=5, images=5"):
        FashionData(images=5, holdout=5)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [(LeNet300(), 266_610), (LeNet5(), 431_080), (ResNet(20), 272_186), (ResNet(8), 77_754)],
    ids=lambda value: type(value).__name__,
)
def test_the_networks_have_the_published_sizes(model, parameters):
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_a_depth_that_is_no_resnet_is_refused():
    with pytest.raises(ValueError, match=r"need a depth of 8, 14, 20, ... \(6 n \+ 2\), got depth=18"):
        ResNet(18)


def test_the_classifier_learns_under_pruning(folder):
    torch.manual_seed(0)
    module, data = FashionClassifier(LeNet300(), lr=0.05), FashionData(str(folder), batch_size=20, images=40)
    trainer = Trainer(
        max_epochs=20,
        accelerator="cpu",
        logger=False,
        callbacks=[PruningCallback(0.95, every_n_steps=1)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    images, labels = data.train
    assert (module(images).argmax(1) == labels).float().mean() > 0.9
    weights = torch.cat([p.flatten() for p in module.parameters() if p.ndim > 1])
    assert (weights == 0).sum().item() == pytest.approx(0.95 * len(weights), abs=1)
