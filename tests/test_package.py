import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_compress


def test_every_public_name_is_there():
    for name in lightning_compress.__all__:
        assert getattr(lightning_compress, name).__name__ == name
    assert set(lightning_compress.__all__) == lightning_compress._ROOM_OF.keys() <= set(dir(lightning_compress))


def test_type_checkers_see_every_public_name():
    tree = ast.parse(Path(lightning_compress.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name for line in block.body for alias in line.names}
    rooms = {alias.name for line in block.body if line.module == "lightning_compress" for alias in line.names}
    assert seen - rooms == set(lightning_compress.__all__)
    assert {room.partition(".")[0] for room in WRITTEN} <= rooms


WRITTEN = {
    "adapters": "declare merge",
    "schedules": "Constant Step Linear Cubic Cosine Exponential",
    "pruning.criteria": "magnitude taylor movement wanda random",
    "pruning": "Unstructured NM Block",
    "channels.criteria": "magnitude taylor batchnorm_scale",
    "quantization.scales": "absmax mse minmax power_of_two",
    "quantization.observers": "minmax mse percentile",
    "quantization": "MixedBits PerChannel PerTensor PerGroup",
    "sharing.initial_centers": "linear density plus_plus",
    "distillation.losses": "mse",
    "distillation": "Term EMA Ensemble Teacher",
    "metrics": "Agreement Fidelity Sparsity",
    "targets": "select",
    "training": "WeightCompression",
    "tying": "tie",
}
"""Room -> what a user writes of it."""


def test_everything_that_a_user_writes_is_reachable_after_one_import():
    code = f"""
import operator, lightning_compress
for room, names in {WRITTEN}.items():
    for name in names.split():
        operator.attrgetter(room + "." + name)(lightning_compress)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_rooms_are_attributes():
    code = "import lightning_compress; print(lightning_compress.tying.tie.__name__)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "tie\n"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Pruner'"):
        _ = lightning_compress.Pruner


def test_archives_are_read_and_shown_where_lightning_is_not_installed(tmp_path):
    code = """
import sys
for name in "lightning pytorch_lightning lightning_fabric lightning_utilities torchmetrics jsonargparse".split():
    sys.modules[name] = None  # its import fails
import torch
from lightning_compress.archive import save_archive
from lightning_compress import load_archive
from lightning_compress.cli import main
save_archive({"a": torch.eye(3)}, sys.argv[1])
assert torch.equal(load_archive(sys.argv[1])["a"], torch.eye(3))
main(["inspect", sys.argv[1]])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.lcz")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert "3 x 3" in done.stdout
