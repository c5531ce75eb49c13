"""Every block of the README and of the docs runs, and every relative link leads to a file.

The Python blocks of a page run in order as one program, in an empty folder. A YAML block is parsed by the command line,
over a config of a model and data, beside a checkpoint of a teacher; a list is taken for the callbacks of the Trainer.
"""

import re
from pathlib import Path

import lightning as L
import pytest
import yaml

from examples.digits import DigitsClassifier
from lightning_compress.cli.lightning import CompressionCLI
from tests.support.pages import run_program

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"(?:\]\(|^\[[^\]]+\]: )(?!#|mailto:)([^)#\s]+)", re.MULTILINE)
REPOSITORY = "https://github.com/lightning-compress/lightning-compress/blob/main/"
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"python", "yaml", "bash", "text"}
BASE = """
model: {class_path: examples.digits.DigitsClassifier}
data: {class_path: examples.digits.DigitsData}
trainer: {accelerator: cpu, logger: false}
"""


def blocks(path: Path, language: str) -> list[str]:
    return [text for _, kind, text in FENCE.findall(path.read_text()) if kind == language]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_block_says_its_language(path):
    assert {kind for _, kind, _ in FENCE.findall(path.read_text())} <= LANGUAGES


@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path, "python")], ids=name)
def test_python_blocks_run(path, tmp_path):
    program = "\n".join(blocks(path, "python"))
    (tmp_path / "page.py").write_text(program)
    assert run_program(tmp_path / "page.py") == ""


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("path", "block"),
    [pytest.param(path, block, id=name(path)) for path in PAGES for block in blocks(path, "yaml")],
)
def test_yaml_blocks_are_configs(path, block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = L.Trainer(accelerator="cpu", logger=False)
    trainer.strategy.connect(DigitsClassifier())
    trainer.save_checkpoint("teacher.ckpt")
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "page.yaml").write_text(yaml.safe_dump(_whole(yaml.safe_load(block))))
    cli = CompressionCLI(args=["--config", f"{tmp_path}/base.yaml", "--config", f"{tmp_path}/page.yaml"], run=False)
    assert isinstance(cli.trainer, L.Trainer)


OTHERS = [ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "examples").rglob("*.md"))]


@pytest.mark.parametrize("path", PAGES + OTHERS, ids=name)
def test_links_lead_to_files(path):
    links = LINK.findall(path.read_text())
    ours = [ROOT / link.removeprefix(REPOSITORY) for link in links if link.startswith(REPOSITORY)]
    beside = [path.parent / link for link in links if not link.startswith("http")]
    assert not [link for link in ours + beside if not link.exists()]


def test_the_readme_has_absolute_links():
    links = LINK.findall((ROOT / "README.md").read_text())  # a package index shows it without the files
    assert [link for link in links if not link.startswith("https:")] == []


def _whole(config: object) -> object:
    if isinstance(config, list):
        return {"trainer": {"callbacks": config}}
    return {"trainer": config} if "callbacks" in config else config
