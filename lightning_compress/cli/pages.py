"""Pages: the help that is printed before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["GROUPS", "WORDS", "overview", "training_page"]

GROUPS: dict[str, str] = {
    "trainer": "epochs, devices, precision, loggers, callbacks",
    "model": "the LightningModule",
    "data": "the LightningDataModule, unless the module has loaders",
    "optimizer": "in place of configure_optimizers of the module",
    "lr_scheduler": "in place of that of the module",
}
"""Group of arguments of ``fit`` -> its line."""

WORDS = {
    "--config FILE": "the YAML file; of several, the last one wins",
    "--ckpt_path FILE": "a checkpoint",
    "--seed_everything N": "the seed of all random numbers",
    "--trainer.NAME VALUE": "one argument of the Trainer, as --trainer.max_epochs 5",
    "--model CLASS": "a dotted path; --model.NAME VALUE for its arguments",
    "--data CLASS": "a dotted path; --data.NAME VALUE for its arguments",
    "--print_config": "print the whole config, with all defaults, and end",
}
"""Words of ``fit`` that are needed most -> what they are."""

_EXAMPLES = {
    "fit": (
        "--config config.yaml",
        "--config config.yaml --trainer.max_epochs 5",
        "--config config.yaml --ckpt_path last.ckpt",
        "--config config.yaml --trainer.callbacks+=QATCallback",
    )
}


def overview(version: str, groups: Mapping[str, Mapping[str, str]]) -> str:
    """The page of ``--help``.

    Args:
        version: of this package.
        groups: title -> commands of the group and their lines.
    """
    lines = [f"lightning-compress {version}: compression during training, for PyTorch Lightning"]
    for title, commands in groups.items():
        lines += ["", f"{title}:", *(f"  {name:<12} {line}" for name, line in commands.items())]
    return "\n".join([*lines, "", *_FOOT])


_FOOT = (
    "examples:",
    "  lightning-compress init smaller-file --model my.Net --data my.Data",
    "  lightning-compress plan --config config.yaml",
    "  lightning-compress fit --config config.yaml",
    "  lightning-compress compare runs/*",
    "",
    "lightning-compress COMMAND --help tells the words of a command.",
    "lightning-compress --version tells the version.",
)


def training_page(verb: str, line: str) -> str:
    """The page of ``fit --help`` and its kind: the words that are needed most, and the way to all others.

    Args:
        verb: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.
        line: its purpose.
    """
    examples = _EXAMPLES.get(verb, ("--config config.yaml --ckpt_path last.ckpt",))
    start = "start from, and go on with, this checkpoint" if verb == "fit" else "the checkpoint with the weights"
    groups = {name: line for name, line in GROUPS.items() if verb == "fit" or name not in ("optimizer", "lr_scheduler")}
    rows = {**WORDS, "--ckpt_path FILE": start}
    return "\n".join(
        [
            f"usage: lightning-compress {verb} --config FILE [--NAME VALUE ...]",
            "",
            f"{line[0].upper()}{line[1:]}.",
            "",
            "examples:",
            *(f"  lightning-compress {verb} {example}" for example in examples),
            "",
            "words:",
            *(f"  {name:<22} {line}" for name, line in rows.items()),
            "",
            f"all words of one group, as lightning-compress {verb} --help trainer:",
            *(f"  {name:<22} {line}" for name, line in groups.items()),
            f"  {'all':<22} everything",
            "",
            "arguments of one class:",
            f"  lightning-compress {verb} --trainer.callbacks.help PruningCallback",
        ]
    )
