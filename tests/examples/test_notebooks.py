"""The notebooks are programs; two of them run here with one epoch, all of them by `make notebooks`."""

from pathlib import Path

import pytest

from tests.support.pages import run_program

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_begins_with_a_title_and_is_on_the_page(source):
    text = source.read_text()
    first = text.split("# %% [markdown]\n")[1]
    assert first.startswith("# # ")
    assert "\n# `pip install" in first
    assert text.count("\nEPOCHS = ") == 1
    assert f"]({source.name})" in (NOTEBOOKS / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "shown"),
    [("start", "accuracy of the file: "), ("distillation", "by the teacher")],
    ids=["start", "distillation"],
)
def test_a_notebook_runs(name, shown, tmp_path):
    lines = (NOTEBOOKS / f"{name}.py").read_text().splitlines()
    quick = ["EPOCHS = 1" if line.startswith("EPOCHS = ") else line for line in lines]
    program = tmp_path / f"{name}.py"
    program.write_text("import matplotlib\n\nmatplotlib.use('agg')\n" + "\n".join(quick))
    assert run_program(program) == ""
    assert shown in program.with_suffix(".out").read_text()
