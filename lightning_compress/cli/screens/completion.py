"""Completion: a script of a shell that knows the commands, their options, and the values of these.

The script is static: a press of the Tab key starts no Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["FILES", "SHELLS", "Completed", "completed", "completion_script"]

FILES = ("*files*",)
"""Stands for the files of the working directory, in place of the values of an option."""

SHELLS = ("bash", "fish", "zsh")


@dataclass(frozen=True)
class Completed:
    """The words of one command.

    Attributes:
        line: its purpose.
        options: name -> values; :data:`FILES` for paths, none where nothing is known.
        values: those of the words without an option.
    """

    line: str
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    values: tuple[str, ...] = ()


def completed(
    line: str, parser: argparse.ArgumentParser, known: Mapping[str, Iterable[str]], more: Mapping[str, tuple[str, ...]]
) -> Completed:
    """The words of a command with a parser of its own.

    Args:
        line: its purpose.
        parser: of its words.
        known: option, or metavar of a word without one, -> values that the parser does not know.
        more: options beside those of the parser.
    """
    options: dict[str, tuple[str, ...]] = {}
    values: tuple[str, ...] = ()
    for action in parser._actions:
        found = _values(action, known)
        options |= {name: found for name in action.option_strings if name.startswith("--")}
        values += () if action.option_strings else found
    return Completed(line, {**options, **more}, values)


def _values(action: argparse.Action, known: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    names = [*action.option_strings, str(action.metavar)]
    given = next((known[name] for name in names if name in known), action.choices)
    if given is not None:
        return tuple(map(str, given))
    return FILES if {"FILE", "PATH", "DIR"} & set(str(action.metavar).replace("|", " ").split()) else ()


def completion_script(shell: str, commands: Mapping[str, Completed]) -> str:
    """The script.

    Args:
        shell: one of :data:`SHELLS`.
        commands: name -> its words.
    """
    if shell == "fish":
        return _fish(commands)
    bash = _BASH.replace("@names@", " ".join(commands)).replace("@cases@", "\n".join(_cases(commands)))
    return _ZSH + bash if shell == "zsh" else bash


_BASH = """\
_lightning_compress() {
  local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" words="" files=""
  if [ "$cur" = "=" ]; then cur=""; elif [ "$prev" = "=" ]; then prev="${COMP_WORDS[COMP_CWORD-2]}"; fi
  if [ "$COMP_CWORD" -eq 1 ]; then words="@names@ --help --version"
  else case "${COMP_WORDS[1]} $prev" in
@cases@
  esac; fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  if [ -n "$files" ]; then COMPREPLY+=($(compgen -f -- "$cur")); fi
}
complete -o filenames -F _lightning_compress lightning-compress
"""

_ZSH = """\
whence compdef > /dev/null || { autoload -U +X compinit && compinit; }
autoload -U +X bashcompinit && bashcompinit
"""


def _cases(commands: Mapping[str, Completed]) -> Iterable[str]:
    """The values of options first: the word before tells them."""
    for name, command in commands.items():
        for option, values in command.options.items():
            if values:
                yield f'    "{name} {option}") {_assigned(values)};;'
    for name, command in commands.items():
        yield f'    "{name} "*) {_assigned((*command.values, *command.options))};;'


def _assigned(values: tuple[str, ...]) -> str:
    words = " ".join(value for value in values if value not in FILES)
    return "; ".join([*([f'words="{words}"'] if words else []), *(["files=1"] if FILES[0] in values else [])])


def _fish(commands: Mapping[str, Completed]) -> str:
    lines = ["complete -c lightning-compress -f"]
    for name, command in commands.items():
        lines.append(f"complete -c lightning-compress -n __fish_use_subcommand -a {name} -d '{command.line}'")
        head = f"complete -c lightning-compress -n '__fish_seen_subcommand_from {name}'"
        if command.values:
            lines.append(f"{head} {_offered(command.values)}")
        for option, values in command.options.items():
            taken = f" {'-r' if FILES[0] in values else '-x'} {_offered(values)}" if values else ""
            lines.append(f"{head} -l '{option.removeprefix('--')}'{taken}")
    return "\n".join([*lines, ""])


def _offered(values: tuple[str, ...]) -> str:
    words = " ".join(value for value in values if value not in FILES)
    return " ".join([*(["-F"] if FILES[0] in values else []), *([f"-a '{words}'"] if words else [])])
