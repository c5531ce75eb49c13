"""A cell of the table: one module with one method, from fit to export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch
import torch
from torch import nn

from benchmarks.ecosystem.methods import Method, PromiseError, coverage, flops
from lightning_compress import export, load_archive, load_compressed
from lightning_compress.example_inputs import as_arguments, call, evaluating
from tests.support.promises import shipped

__all__ = ["Cell", "Subject", "cell"]

EPOCHS, STEPS_PER_EPOCH = 3, 4


@dataclass(frozen=True)
class Subject:
    """A module of another package.

    Args:
        module: makes the LightningModule, with the same weights every time.
        batches: makes the loader, with the same batches every time.
        example: input of ``forward``.
        init_args: arguments of its class that no checkpoint holds.
        include: patterns of the weights.
        package: the Lightning that the module is built on.
    """

    module: Callable[[], Any]
    batches: Callable[[], Any]
    example: Any
    init_args: Mapping[str, Any] = field(default_factory=dict)
    include: tuple[str, ...] = ("*",)
    package: Any = lightning.pytorch


@dataclass(frozen=True)
class Cell:
    """What became of it: ``works``, ``refused`` or ``FAULT``, and the message."""

    verdict: str
    note: str = ""


def cell(subject: Subject, method: Method, folder: Path) -> Cell:
    """Fit, count, load, resume and export."""
    module = subject.module()
    dense = flops(module, subject.example)
    callbacks = method.callbacks(module, subject.example, subject.include)
    try:
        steps = _fit(subject, module, callbacks, folder / "whole")
    except (ValueError, TypeError) as error:
        return _refusal(error, module)
    except Exception as error:
        return _fault("fit", error)
    covered = coverage(callbacks, module)
    stage = "promise"
    try:
        method.promise(callbacks, module, subject.example, dense)
        stage = "load"
        _check_loads(subject, method, module, folder / "whole" / f"epoch={EPOCHS - 1}.ckpt")
        stage = "resume"
        _check_resumes(subject, method, module, folder, dense)
        stage = "export"
        _check_exports(subject, method, module, folder)
    except Exception as error:
        return _fault(stage, error)
    return Cell("works", "" if covered > 0.995 else f"{covered:.0%}") if steps else Cell("FAULT", "no step was made")


def _fit(subject: Subject, module: Any, callbacks: list[Any], folder: Path, ckpt_path: Path | None = None) -> int:
    package = subject.package

    class Seeds(package.Callback):  # type: ignore[misc,name-defined]
        """Dropout draws the same numbers in a resumed run."""

        def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
            torch.manual_seed(trainer.global_step)

    saves = package.callbacks.ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1, every_n_epochs=1)
    trainer = package.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        limit_train_batches=STEPS_PER_EPOCH,
        limit_val_batches=0,
        callbacks=[*callbacks, Seeds(), saves],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    try:
        trainer.fit(module, subject.batches(), ckpt_path=ckpt_path, **({"weights_only": False} if ckpt_path else {}))
    except (ValueError, TypeError) as error:
        if trainer.global_step:
            raise RuntimeError(f"after {trainer.global_step} steps, {type(error).__name__}: {error}") from error
        raise
    return int(trainer.global_step)


def _outputs(subject: Subject, module: nn.Module) -> list[torch.Tensor]:
    with evaluating(module):
        torch.manual_seed(0)
        return list(_tensors(call(module, subject.example)))


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    """The floating-point tensors of an output, also of a dataclass."""
    if isinstance(output, torch.Tensor):
        yield from [output] if output.is_floating_point() else []
    elif is_dataclass(output):
        yield from _tensors([getattr(output, entry.name) for entry in fields(output)])
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()))
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors(part)


def _require_same(got: list[torch.Tensor], expected: list[torch.Tensor], stage: str) -> None:
    same = len(got) == len(expected) and all(
        torch.allclose(*pair, 1e-5, 1e-6) for pair in zip(got, expected, strict=True)
    )
    if not (expected and same):
        raise PromiseError(f"{stage}: the outputs differ")


def _check_loads(subject: Subject, method: Method, module: Any, path: Path) -> None:
    expected = _outputs(subject, module)
    if method.plain:
        plain = subject.module()
        plain.load_state_dict(torch.load(path, map_location="cpu", weights_only=False)["state_dict"])
        _require_same(_outputs(subject, plain), expected, "load_state_dict")
    safe = bool(subject.init_args)
    loaded = load_compressed(type(module), path, weights_only=safe, **subject.init_args)
    _require_same(_outputs(subject, loaded), expected, "load_compressed")


def _check_resumes(subject: Subject, method: Method, module: Any, folder: Path, dense: int) -> None:
    for epoch in range(1 if method.plain else EPOCHS - 1):
        again = subject.module()
        callbacks = method.callbacks(again, subject.example, subject.include)
        _fit(subject, again, callbacks, folder / f"resumed{epoch}", folder / "whole" / f"epoch={epoch}.ckpt")
        method.promise(callbacks, again, subject.example, dense)
        state, other = module.state_dict(), again.state_dict()
        differ = [name for name in state if not torch.equal(state[name], other[name])]
        if differ:
            raise PromiseError(f"resumed after epoch {epoch}, {len(differ)} tensors differ, first {differ[0]}")


def _check_exports(subject: Subject, method: Method, module: Any, folder: Path) -> None:
    path = export(module, folder / "m.lcz")
    if method.plain:
        stored = load_archive(path)
        if not all(torch.equal(stored[name], tensor) for name, tensor in shipped(module).state_dict().items()):
            raise PromiseError("the archive differs from the state dict")
    if subject.init_args:
        loaded = load_compressed(type(module), path, **subject.init_args)
        _require_same(_outputs(subject, loaded), _outputs(subject, module), "load_compressed of the archive")
    if not method.plain and find_spec("onnxruntime") and find_spec("onnxscript"):
        try:
            export(module, folder / "m.onnx", subject.example)
        except Exception:
            if torch_exports(subject, folder):
                raise


def torch_exports(subject: Subject, folder: Path) -> bool:
    """Whether torch itself writes the dense module as ``.onnx``, so that a compressed one can be asked for."""
    module = subject.module()
    args, kwargs = as_arguments(subject.example)
    try:
        with evaluating(module):
            torch.onnx.export(module, args, folder / "dense.onnx", kwargs=kwargs, verbose=False)
    except Exception:
        return False
    return True


def _refusal(error: Exception, module: nn.Module) -> Cell:
    message = " ".join(str(error).split())
    names = [name for name, _ in (*module.named_modules(), *module.named_parameters()) if name]
    arguments = ["include", "exclude", "example_input", "pattern", "macs", "sparsity", "losses", "network", "teacher"]
    if any(name in message for name in (*names, *arguments)):
        return Cell("refused", message)
    return Cell("FAULT", f"refused without a name: {type(error).__name__}: {message}")


def _fault(stage: str, error: Exception) -> Cell:
    return Cell("FAULT", f"{stage}: {type(error).__name__}: {' '.join(str(error).split())}")
