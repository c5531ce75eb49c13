"""Optimizers: the optimizers of torch and of other packages, each stepping weights of 4 bits.

An optimizer that trains a small network by itself is tried with ``QATCallback(4, activation_bits=None)``, in automatic
and in manual optimization. It passes if the weights are on their grids after every step, and the latents move between
them. One that moves no weight in a step, as AdaShift in its first ten, is given more steps than it needs for that.

``pip install --no-deps pytorch_optimizer torch_optimizer pytorch_ranger lion-pytorch prodigyopt schedulefree`` brings
the others. Packages that are not installed are left out.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from lightning_compress import QATCallback
from lightning_compress.schedules import Constant

PACKAGES = "torch.optim", "pytorch_optimizer", "torch_optimizer", "lion_pytorch", "prodigyopt", "schedulefree"
STEPS = 30


def main() -> None:
    """Print a row for each package, and a line for each optimizer that is refused or fails."""
    quiet()
    torch.set_num_threads(1)
    rows, told = [], []
    for package in PACKAGES:
        if find_spec(package.partition(".")[0]) is None:
            continue
        found = {(kind, manual): _tried(kind, manual) for kind in _optimizers(package) for manual in (False, True)}
        tried = {key: outcome for key, outcome in found.items() if outcome != "does not train by itself"}
        counts = Counter("refused" if outcome.startswith("refused") else outcome for outcome in tried.values())
        names = len({kind for kind, _ in tried})
        rows.append([package, str(names), *(str(counts[each]) for each in ("works", "refused", "fails"))])
        told += [
            f"{package}.{kind.__name__}, {'manual' if manual else 'automatic'}: {outcome}"
            for (kind, manual), outcome in tried.items()
            if outcome != "works"
        ]
    show("Optimizers", ["package", "optimizers", "runs that work", "refused", "fail"], rows)
    print(*told, sep="\n")


def _optimizers(package: str) -> list[type[Optimizer]]:
    module = import_module(package)
    kinds = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, Optimizer)]
    return [kind for kind in kinds if kind is not Optimizer]


def _tried(kind: type[Optimizer], manual: bool) -> str:
    """What becomes of a run with an optimizer, in words."""
    try:
        _fit(_Network(kind, manual))
    except Exception:  # of any package
        return "does not train by itself"
    watch = _Watch()
    try:
        _fit(_Network(kind, manual), QATCallback(4, activation_bits=None, schedule=Constant()), watch)
    except ValueError as error:
        return f"refused: {error}"
    return "works" if watch.passes else "fails"


def _fit(module: LightningModule, *callbacks: Callback) -> None:
    batches = torch.randn(STEPS, 4, 16, generator=torch.Generator().manual_seed(1))
    trainer(*callbacks, max_epochs=1).fit(module, DataLoader(batches, batch_size=None))


class _Network(LightningModule):
    def __init__(self, kind: Callable[..., Optimizer], manual: bool) -> None:
        super().__init__()
        seed_everything(0, verbose=False)
        self.kind, self.automatic_optimization = kind, not manual
        self.net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor | None:
        loss = F.mse_loss(self.net(batch), batch.roll(1, 0)[:, :8])
        if self.automatic_optimization:
            return loss
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return None

    def configure_optimizers(self) -> Optimizer:
        parameters: Iterable[Tensor] = list(self.parameters())
        try:
            return self.kind(parameters, lr=1e-2)
        except TypeError:  # some have no learning rate
            return self.kind(parameters)


class _Watch(Callback):
    """Looks at weights and latents after each step."""

    def __init__(self) -> None:
        self.on_grid, self.apart, self.moves = True, 0, 0
        self.before: dict[str, Tensor] = {}

    @property
    def passes(self) -> bool:
        """Whether weights were on their grids, and latents between them, and both moved."""
        return self.on_grid and self.apart >= STEPS - 1 and self.moves >= STEPS // 2

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        (run,) = (run for callback in trainer.callbacks if (run := getattr(callback, "_run", None)))
        latents = run._latents.latents()
        weights = {name: pl_module.get_parameter(name).detach() for name in latents}
        self.on_grid &= all(len(row.unique()) <= 15 for weight in weights.values() for row in weight)
        self.apart += any(not torch.equal(latents[name], weights[name]) for name in latents)
        self.moves += any(not torch.equal(latents[name], old) for name, old in self.before.items())
        self.before = latents


if __name__ == "__main__":
    main()
