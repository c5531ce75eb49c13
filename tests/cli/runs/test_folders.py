"""One path leads to the weights and to the config or class."""

import re
from pathlib import Path

import pytest
import torch

from lightning_compress.archive import save_archive
from lightning_compress.cli.runs.folders import source_of


def checkpoint(path, **hyper_parameters):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {}, "hyper_parameters": hyper_parameters}, path)
    return path


def test_the_folder_of_a_run_has_config_and_weights(tmp_path):
    (tmp_path / "config.yaml").write_text("model: m.Net")
    best = checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    assert source_of(tmp_path).weights == best  # the only one
    last = checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    found = source_of(tmp_path)
    assert (found.weights, found.config, found.others) == (last, tmp_path / "config.yaml", (best,))
    save_archive({"a": torch.ones(1)}, tmp_path / "model.lcz")
    assert source_of(tmp_path).weights == tmp_path / "model.lcz"  # of the report: the end of the run
    assert source_of(best).config == tmp_path / "config.yaml"
    assert source_of(best, cls="m.Net").config is None
    with pytest.raises(ValueError, match="need one of --config and --model, got both: the class is that of the config"):
        source_of(best, tmp_path / "config.yaml", "m.Net")


def test_a_checkpoint_alone_needs_its_class(tmp_path):
    path = checkpoint(tmp_path / "a.ckpt", _class_path="project.Net")
    with pytest.raises(
        ValueError,
        match="or --model with the dotted path of the class: project.Net, as the file says",
    ):
        source_of(path)
    assert source_of(path, cls="project.Net").cls == "project.Net"
    archive = tmp_path / "b.lcz"
    save_archive({"a": torch.ones(1)}, archive, {"hyper_parameters": {"_class_path": "project.Net"}})
    with pytest.raises(ValueError, match="class: project.Net, as the file says, if you trust it"):
        source_of(archive)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.ckpt", "b.ckpt"], "with several checkpoints: a.ckpt, b.ckpt: pass the path of the file"),
        ([], "with none: pass the path of the file"),
    ],
)
def test_a_folder_without_a_clear_answer_is_refused(names, said, tmp_path):
    for name in names:
        checkpoint(tmp_path / name)
    with pytest.raises(ValueError, match=re.escape(said)):
        source_of(tmp_path)


def test_wrong_paths_are_named(tmp_path):
    with pytest.raises(ValueError, match="a .ckpt or an .lcz, got 'none', which does not exist"):
        source_of(Path("none"))
    (tmp_path / "a.pt").touch()
    with pytest.raises(ValueError, match="need the folder of a run, a .ckpt or an .lcz, got '.*a.pt'"):
        source_of(tmp_path / "a.pt")
    with pytest.raises(ValueError, match="need a file as --config, got 'none.yaml', which does not exist"):
        source_of(checkpoint(tmp_path / "a.ckpt"), config=Path("none.yaml"))
