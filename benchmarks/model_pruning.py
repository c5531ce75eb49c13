"""Zeros of PruningCallback and Lightning's ModelPruning through the life of a run.

The digits example is pruned to 90 % in twelve epochs by each. ModelPruning prunes at the ends of six epochs, each time
the same fraction of the remaining weights; it does not rewind, and prunes no biases. The table shows the fraction of
zeros among the weights of convolution and linear layers.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, ModelPruning
from torch import Tensor

from benchmarks.tables import quiet, show
from examples.digits import DigitsClassifier, DigitsData
from lightning_compress import PruningCallback

SPARSITY, EPOCHS = 0.9, 12
PRUNED = range(2, 8)
"""Epochs at whose ends ModelPruning prunes."""

Make = Callable[[], Callback]


def main() -> None:
    """Print one table."""
    quiet()
    methods: dict[str, Make] = {"ModelPruning": _model_pruning, "PruningCallback": lambda: PruningCallback(SPARSITY)}
    rows = [
        [question, *(_answer(ask, make) for make in methods.values())]
        for question, ask in {
            "zeros after fit": _uninterrupted,
            "zeros after fit, resumed after eight epochs": _resumed,
            "weights of the resumed run": _difference,
            "zeros in the best checkpoint (highest val_acc)": _best,
            "a checkpoint in the middle of the ramp, loaded into the plain module": _middle,
            "zeros after fit with EMAWeightAveraging": _averaged,
            "copy.deepcopy(module) during the ramp": _copied,
        }.items()
    ]
    show("Digits, 90 % of the weights asked for", ["", *methods], rows)


def _answer(ask: Callable[[Make], str], make: Make) -> str:
    try:
        return ask(make)
    except Exception as error:  # the error that a user would see is the result
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}"


def _uninterrupted(make: Make) -> str:
    return f"{_zeros(_fit(make()).state_dict()):.1%}"


def _resumed(make: Make) -> str:
    return f"{_zeros(_in_two_parts(make).state_dict()):.1%}"


def _difference(make: Make) -> str:
    one, other = _fit(make()).state_dict(), _in_two_parts(make).state_dict()
    return "bit-identical" if all(torch.equal(one[name], other[name]) for name in one) else "others"


def _best(make: Make) -> str:
    folder = Path(tempfile.mkdtemp())
    _fit(make(), ModelCheckpoint(folder, "best", monitor="val_acc", mode="max"))
    return f"{_zeros(_load(folder / 'best.ckpt')):.1%}"


def _middle(make: Make) -> str:
    folder = Path(tempfile.mkdtemp())
    _fit(make(), ModelCheckpoint(folder, "{epoch}", every_n_epochs=1, save_top_k=-1), epochs=EPOCHS // 2)
    DigitsClassifier().load_state_dict(_load(folder / f"epoch={EPOCHS // 2 - 1}.ckpt"))
    return "loads, strict"


def _averaged(make: Make) -> str:
    return f"{_zeros(_fit(make(), EMAWeightAveraging(decay=0.9)).state_dict()):.1%}"


def _copied(make: Make) -> str:
    copies: list[LightningModule] = []

    class Copy(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == PRUNED[1]:
                copies.append(copy.deepcopy(pl_module))

    _fit(make(), Copy())
    return "works"


def _in_two_parts(make: Make) -> LightningModule:
    folder = Path(tempfile.mkdtemp())

    class Kill(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 8:
                raise KeyboardInterrupt

    with suppress(KeyboardInterrupt, SystemExit):
        _fit(make(), ModelCheckpoint(folder, "last"), Kill())
    return _fit(make(), resume=folder / "last.ckpt")


def _fit(*callbacks: Callback, epochs: int = EPOCHS, resume: Path | None = None) -> LightningModule:
    seed_everything(0, verbose=False)
    module = DigitsClassifier()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, DigitsData(), ckpt_path=resume)
    return module


def _model_pruning() -> ModelPruning:
    return ModelPruning(
        "l1_unstructured",
        amount=1 - (1 - SPARSITY) ** (1 / len(PRUNED)),
        apply_pruning=lambda epoch: epoch in PRUNED,
        parameter_names=["weight"],
        use_lottery_ticket_hypothesis=False,
    )


def _load(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return state


def _zeros(state: dict[str, Tensor]) -> float:
    weights = torch.cat([tensor.flatten() for name, tensor in state.items() if tensor.ndim > 1])
    return (weights == 0).float().mean().item()


if __name__ == "__main__":
    main()
