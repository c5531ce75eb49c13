"""Pages of help are there before anything heavy is imported, and fit a terminal of 80 columns."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from lightning_compress.cli import main
from lightning_compress.cli.commands import COMMANDS
from lightning_compress.cli.lightning import CompressionCLI
from lightning_compress.cli.pages import GROUPS

ROOT = Path(__file__).parents[2]
VERBS = tuple(COMMANDS["train and evaluate"])
OTHERS = [name for group in COMMANDS.values() for name in group if name not in VERBS]
PAGES = [["--help"], ["-h"], [], *([verb, "--help"] for verb in VERBS)]


def said(capsys, words):
    with suppress(SystemExit):
        main(words)
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [*PAGES, *([name, "--help"] for name in OTHERS)], ids=" ".join)
def test_pages_fit_80_columns(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = said(capsys, words)
    assert max(map(len, out.splitlines())) <= 80
    assert "\nexamples:\n  lightning-compress " in out


def test_the_overview_has_a_line_for_every_command(capsys):
    out = said(capsys, ["--help"])
    for group in COMMANDS.values():
        for name, command in group.items():
            assert f"\n  {name:<12} {command.line}\n" in out


def test_no_page_imports_a_heavy_package():
    code = f"""
import sys
from contextlib import suppress
from lightning_compress.cli import main
for words in {[["--help"], ["--version"], ["completion", "bash"], *([name, "--help"] for name in (*VERBS, *OTHERS))]}:
    with suppress(SystemExit):
        main(words)
assert not sys.modules.keys() & {{"torch", "numpy", "rich", "lightning", "pytorch_lightning", "jsonargparse", "yaml"}}
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Lightning's use of jsonargparse
def test_the_groups_are_those_of_the_parser(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lightning-compress"])
    monkeypatch.setattr(sys, "path", list(sys.path))

    class Parsed(CompressionCLI):
        def parse_arguments(self, parser, args):
            raise SystemExit(" ".join({action.dest.partition(".")[0] for action in self._parser("fit")._actions}))

    with pytest.raises(SystemExit) as parsed:
        Parsed(args=["fit"])
    assert GROUPS.keys() <= set(parsed.value.code.split())

    out = said(capsys, ["fit", "--help", "data"])
    assert "--data.help" in out
    assert "--model" not in out
    out = said(capsys, ["fit", "--help", "all"])
    assert all(f"--{name}.help" in out for name in ("trainer.callbacks", "model", "data", "optimizer", "lr_scheduler"))


def test_an_unknown_group_or_command_is_named(capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--help", "callbacks"])
    assert "with one of trainer, model, data, optimizer, lr_scheduler, all, got 'callbacks'" in str(stopped.value.code)
    for word in ("fitt", "trian"):  # train is the word of other tools
        with pytest.raises(SystemExit) as stopped:
            main([word, "--config", "config.yaml"])
        assert stopped.value.code == 2
        assert capsys.readouterr().err.endswith(f"got {word!r}; did you mean 'fit'?\n")


def test_the_version(capsys):
    assert said(capsys, ["--version"]) == "0.1.0\n"


def test_a_closed_pipe_is_no_error():
    code = "import sys; from lightning_compress.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-u", "-c", code, "list", "callbacks"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as listing:
        listing.stdout.close()
        assert listing.stderr.read() == b""
    assert listing.returncode == 1
