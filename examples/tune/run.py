"""Sparsity and learning rate of the digits example, searched by Ray Tune: ``pip install "ray[tune]"``.

``python -m examples.tune.run``
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer, seed_everything
from ray import tune
from ray.tune.integration.pytorch_lightning import TuneReportCallback

from examples.digits import DigitsClassifier, DigitsData
from lightning_compress import PruningCallback, export


def train(config: dict[str, Any]) -> None:
    """One trial: accuracy after every epoch, and the bytes of the archive at the end."""
    seed_everything(0)
    module = DigitsClassifier(config["lr"])
    callbacks = [PruningCallback(config["sparsity"]), TuneReportCallback({"val_acc": "val_acc"}, on="validation_end")]
    trainer = Trainer(max_epochs=5, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=callbacks)
    trainer.fit(module, datamodule=DigitsData())
    size = export(module, "model.lcz").stat().st_size  # Ray gives each trial a folder of its own
    tune.report({"val_acc": trainer.callback_metrics["val_acc"].item(), "bytes": size})


def main() -> None:
    """Run four trials, and print their settings and numbers."""
    space = {"sparsity": tune.uniform(0.5, 0.98), "lr": tune.loguniform(1e-3, 1e-2)}
    tuner = tune.Tuner(train, param_space=space, tune_config=tune.TuneConfig(num_samples=4))
    print(tuner.fit().get_dataframe()[["config/sparsity", "config/lr", "val_acc", "bytes"]])


if __name__ == "__main__":
    main()
