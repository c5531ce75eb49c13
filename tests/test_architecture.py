"""The law of the stairs: a file imports only from stairs below its own, and methods never import each other."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lightning_compress"
STAIRS = [
    {"arguments", "blocks", "drafts", "lightnings", "messages", "probes", "schemas"},
    {"carried", "state_dicts"},
    {"adapters"},
    {
        "archive",
        "costs",
        "evidence",
        "example_inputs",
        "metrics",
        "processes",
        "schedules",
        "targets",
        "tying",
    },
    {"launchers", "macs", "timing"},
    {"latent"},
    {"training"},
    {"pruning", "channels", "quantization", "sharing", "low_rank", "distillation"},
    {"lowering", "loading"},
    {"deploy"},
    {"report"},
    {"search"},
    {"cli"},
]
MAY_IMPORT_LIGHTNING = {
    "callback.py",
    "launchers.py",
    "module.py",
    "training.py",
    "commands.py",
    "suggestions.py",
    "students.py",
    "checkpoints.py",
    "__init__.py",
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def stair(name: str) -> int:
    heights = [height for height, rooms in enumerate(STAIRS) if name in rooms]
    assert heights, f"need a stair for the room {name!r}: add the room to STAIRS, above every room that it imports"
    return heights[0]


def imports(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_stairs(path):
    here = room(path)
    if here == "__init__":
        return
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "lightning_compress" or len(parts) == 1:
            continue
        there = parts[1]
        assert there == here or stair(there) < stair(here), f"{here} must not import {there}"


def test_a_room_without_a_stair_is_named():
    with pytest.raises(AssertionError, match="need a stair for the room 'lumber': add the room to STAIRS"):
        stair("lumber")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_lightning_stays_in_the_wiring(path):
    if room(path) != "training" and path.name not in MAY_IMPORT_LIGHTNING:
        assert "lightning_compress.lightnings" not in imports(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_both_lightnings_are_imported_in_one_place(path):
    """A class that a file takes from one of them would not know the other's."""
    roots = {name.split(".")[0] for name in imports(path)}
    if path.name != "lightnings.py" and room(path) != "cli":
        assert roots.isdisjoint({"lightning", "lightning_fabric", "pytorch_lightning"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_nouns(path):
    assert path.stem not in {"utils", "util", "helpers", "base", "common", "misc", "core"}


TESTS = Path(__file__).parent
LIFECYCLE = {
    "callback": "a method's life in a Trainer",
    "composition": "several methods in one fit",
    "damage": "files that are broken",
    "own_grids": "a grid of a user's own",
    "refusals": "arguments and models that are refused",
    "resume": "checkpoints and resumed runs",
    "sharded": "FSDP2",
    "shards": "FSDP2",
    "streams": "training data that is read once",
    "trainer": "features of the Trainer",
    "verification": "broken promises stop a run",
    "exceptions": "runs that end in an exception",
    "every_loss": "what holds of all losses",
}
"""Name of a test module that mirrors no file of its room -> what it is about."""
TEST_FILES = sorted(TESTS.rglob("test_*.py"))


def named(path: Path) -> str:
    return str(path.relative_to(TESTS))


@pytest.mark.parametrize("path", TEST_FILES, ids=named)
def test_no_test_module_imports_from_another(path):
    tree = ast.parse(path.read_text())
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = [*imports(path), *(f"{node.module}.{alias.name}" for node in froms for alias in node.names)]
    others = [name for name in names if name.startswith("tests.") and ".test_" in name]
    assert not others, f"{named(path)} imports from {others}: move what both need to tests/support"


@pytest.mark.parametrize("path", [path for path in TEST_FILES if path.parent != TESTS], ids=named)
def test_tests_mirror_the_package(path):
    place, name = path.parent.relative_to(TESTS), path.stem.removeprefix("test_")
    if place.parts[0] == "examples":
        return
    mirrored = PACKAGE / place / f"{name}.py"
    assert mirrored.is_file() or name in LIFECYCLE, f"{named(path)} mirrors no {place}/{name}.py"


@pytest.mark.parametrize("folder", sorted({path.parent for path in TEST_FILES}), ids=named)
def test_folders_of_tests_are_packages(folder):
    assert (folder / "__init__.py").is_file()
