"""Files that are not there are said before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_compress.cli.runs.given import check_file, missing_file

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--config none.yaml", "need --config as a file, got 'none.yaml', which does not exist"),
        ("--trainer.max_epochs=1 --config=none.yaml", "need --config as a file, got 'none.yaml'"),
        ("-c none.yaml", "need --config as a file, got 'none.yaml'"),
        ("--config here.yaml --ckpt_path none.ckpt", "need --ckpt_path as a file, got 'none.ckpt'"),
        ("--ckpt_path=none.ckpt", "need --ckpt_path as a file, got 'none.ckpt'"),
        ("--config here.yaml --ckpt_path best", ""),
        ("--ckpt_path null --ckpt_path registry:model:version:2 --ckpt_path s3://bucket/a.ckpt", ""),
        ("--config {seed_everything:1}", ""),
        ("--trainer.logger --config", ""),
        ("", ""),
    ],
)
def test_files_of_fit(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("here.yaml").touch()
    found = missing_file(words.split())
    assert found.startswith(said) if said else not found


RUN = "need the folder of a run, a .ckpt or an .lcz, got 'none', which does not exist"
LINES = {
    **{
        f"{name} --config none.yaml": "need --config as a file, got 'none.yaml', which does not exist"
        for name in ("fit", "validate", "test", "predict", "plan", "sensitivity", "sweep")
    },
    "test --config here.yaml --ckpt_path none.ckpt": "need --ckpt_path as a file, got 'none.ckpt', which does not",
    "export none --format onnx": RUN,
    "profile none": RUN,
    "export here.ckpt --format onnx --config none.yaml": "need a file as --config, got 'none.yaml', which does not",
    "profile here.ckpt --model my.Net --example none.npy": "need --example as sizes or a file, got 'none.npy'",
    "inspect none.onnx": "need path as that of a file, got 'none.onnx': no such file",
    "compare none": "need paths of runs, got 'none', which does not exist",
}


@pytest.mark.parametrize("line", LINES)
def test_nothing_heavy_is_imported(line, tmp_path):
    (tmp_path / "here.yaml").touch()
    (tmp_path / "here.ckpt").touch()
    code = (
        "import sys\nfrom lightning_compress.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stopped:\n"
        "    heavy = {name.partition('.')[0] for name in sys.modules} & {'torch', 'lightning', 'jsonargparse'}\n"
        "    print(stopped.code, sorted(heavy))\n"
    )
    words = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}", *line.split()]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert LINES[line] in done.stdout + done.stderr
    assert done.stdout.endswith(" []\n")


def test_a_package_of_core_ml_is_no_file(tmp_path):
    (path := tmp_path / "m.mlpackage").mkdir()
    with pytest.raises(ValueError, match=r"need path as that of a file, got '.*m.mlpackage', of Core ML: Xcode"):
        check_file(path)
