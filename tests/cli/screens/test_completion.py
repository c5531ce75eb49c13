"""Scripts of completion, run by the shell itself."""

import subprocess
from contextlib import suppress

import pytest

from lightning_compress.cli import main
from lightning_compress.cli.commands import COMMANDS
from lightning_compress.cli.goals.configs import GOALS

NAMES = [name for group in COMMANDS.values() for name in group]
OWN = {name: one.parser for group in COMMANDS.values() for name, one in group.items() if one.parser}


@pytest.fixture
def offered(capsys, tmp_path):
    with suppress(SystemExit):
        main(["completion", "bash"])
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)

    def ask(*words):
        """What the Tab key offers after some words, the last of which is being typed."""
        code = 'source "$1"; COMP_WORDS=(lightning-compress "${@:2}"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))'
        code += '; _lightning_compress; printf "%s\\n" "${COMPREPLY[@]}"'
        asked = subprocess.run(
            ["bash", "--norc", "-c", code, "bash", str(script), *words],
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert asked.stderr == ""
        return asked.stdout.split()

    return ask


def test_commands_are_offered(offered):
    assert offered("") == [*NAMES, "--help", "--version"]
    assert offered("in") == ["init", "inspect"]


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["init", "small"], ["smaller-file", "small-loss"]),
        (["init", "--mode", ""], ["min", "max"]),
        (["export", "--format", "o"], ["onnx"]),
        (["export", "--format", "=", "p"], ["pt2", "pte"]),
        (["completion", ""], ["bash", "fish", "zsh", "--help"]),
        (["list", "Pru"], ["PruningCallback"]),
        (["fit", "--help", "lr"], ["lr_scheduler"]),
        (["fit", "--ck"], ["--ckpt_path"]),
        (["plan", "--config", "a.yaml", "--js"], ["--json"]),
        (["fit", "--trainer.callbacks+", "=", "Q"], ["QATCallback"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_values_of_options_are_offered(offered, words, values):
    assert offered(*words) == values


@pytest.mark.parametrize("words", [["inspect", "mo"], ["fit", "--config", "mo"], ["fit", "--config", "=", "mo"]])
def test_files_are_offered(offered, tmp_path, words):
    (tmp_path / "model.lcz").touch()
    assert offered(*words) == ["model.lcz"]


def test_no_file_is_offered_where_no_file_belongs(offered, tmp_path):
    (tmp_path / "smaller").touch()
    assert offered("init", "smaller") == ["smaller-file"]
    assert set(GOALS) <= set(offered("init", ""))


@pytest.mark.parametrize("command", OWN)
def test_every_option_of_a_command_is_offered(offered, command):
    options = [name for action in OWN[command]()._actions for name in action.option_strings if name.startswith("--")]
    assert set(options) <= set(offered(command, "--"))


@pytest.mark.parametrize("shell", ["fish", "zsh"])
def test_the_scripts_of_other_shells_name_all_commands(shell, capsys):
    main(["completion", shell])
    words = capsys.readouterr().out.split()
    assert set(NAMES) <= {word.strip("\"'").removeprefix('words="') for word in words}
