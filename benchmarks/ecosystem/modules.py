"""LightningModules of other packages, in the Trainer of the Lightning that each is built on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.ecosystem.cells import Subject

__all__ = ["MODULES"]

BATCHES, BATCH, PAST, FUTURE = 4, 8, 16, 4


def _seeded(make: Callable[..., Any], **init_args: Any) -> Callable[[], Any]:
    def module() -> Any:
        torch.manual_seed(0)
        return make(**init_args)

    return module


def _waves(length: int, seed: int) -> Tensor:
    """A batch of sines with phases of their own."""
    phases = torch.rand(BATCH, 1, generator=torch.Generator().manual_seed(seed)) * 6
    return torch.sin(torch.arange(length) / 3 + phases)


def _gluonts() -> Subject:
    from gluonts.torch.model.simple_feedforward.lightning_module import SimpleFeedForwardLightningModule

    sizes = {"prediction_length": FUTURE, "context_length": PAST, "hidden_dimensions": [32, 16]}
    init_args = {"model_kwargs": sizes}

    def batch(seed: int) -> dict[str, Tensor]:
        past, future = _waves(PAST + FUTURE, seed).split([PAST, FUTURE], 1)
        return {"past_target": past, "future_target": future, "future_observed_values": torch.ones_like(future)}

    return Subject(
        _seeded(SimpleFeedForwardLightningModule, **init_args),
        batches=lambda: DataLoader([batch(seed) for seed in range(BATCHES)], batch_size=None),
        example={"past_target": _waves(PAST, 9)},
        init_args=init_args,
    )


def _darts() -> Subject:
    import pytorch_lightning
    from darts.models.forecasting.tcn_model import _TCNModule
    from darts.utils.data.torch_datasets.utils import PLModuleInput, TorchTrainingBatch

    init_args = {
        "input_chunk_length": PAST,
        "output_chunk_length": FUTURE,
        "train_sample_shape": {"past_target": (PAST, 1), "future_target": (PAST, 1)},
        "input_size": 1,
        "kernel_size": 3,
        "num_filters": 16,
        "num_layers": 2,
        "dilation_base": 2,
        "weight_norm": False,
        "target_size": 1,
        "nr_params": 1,
        "target_length": FUTURE,
        "dropout": 0.1,
        "optimizer_cls": torch.optim.Adam,
    }

    def batch(seed: int) -> TorchTrainingBatch:
        waves = _waves(PAST + FUTURE, seed).unsqueeze(-1)
        return TorchTrainingBatch(past_target=waves[:, :PAST], future_target=waves[:, FUTURE:])

    # Without init_args the checkpoint is trusted: darts reads its loss from it, which is an object.
    return Subject(
        _seeded(_TCNModule, **init_args),
        batches=lambda: DataLoader([batch(seed) for seed in range(BATCHES)], batch_size=None),
        example=(PLModuleInput(past_target=_waves(PAST, 9).unsqueeze(-1)),),
        package=pytorch_lightning,
    )


def _frame() -> Any:
    import pandas

    series = [{"unique_id": str(s), "ds": t, "y": float(_waves(64, 0)[s, t])} for s in range(BATCH) for t in range(64)]
    return pandas.DataFrame(series)


def _neuralforecast() -> Subject:
    import pytorch_lightning
    from neuralforecast.models import MLP
    from neuralforecast.tsdataset import TimeSeriesDataModule, TimeSeriesDataset

    dataset = TimeSeriesDataset.from_df(_frame())[0]
    sizes = {"h": FUTURE, "input_size": PAST, "hidden_size": 32, "max_steps": 12, "scaler_type": None}
    return Subject(
        _seeded(MLP, **sizes),
        batches=lambda: TimeSeriesDataModule(dataset, batch_size=2, shuffle_train=False),
        example=({"insample_y": _waves(PAST, 9), "futr_exog": None, "hist_exog": None, "stat_exog": None},),
        package=pytorch_lightning,
    )


def _pytorch_forecasting() -> Subject:
    from pytorch_forecasting import NBeats, TimeSeriesDataSet

    names = {"time_idx": "ds", "target": "y", "group_ids": ["unique_id"], "time_varying_unknown_reals": ["y"]}
    dataset = TimeSeriesDataSet(_frame(), max_encoder_length=PAST, max_prediction_length=FUTURE, **names)
    loader = dataset.to_dataloader(train=False, batch_size=BATCH)

    def make() -> Any:
        return NBeats.from_dataset(dataset, widths=[16, 16], num_blocks=[1, 1], num_block_layers=[2, 2])

    return Subject(_seeded(make), batches=lambda: loader, example=(next(iter(loader))[0],))


MODULES: dict[str, Callable[[], Subject]] = {
    "darts, TCN": _darts,
    "gluonts, feed-forward": _gluonts,
    "neuralforecast, MLP": _neuralforecast,
    "pytorch-forecasting, N-BEATS": _pytorch_forecasting,
}
"""Name of a row -> the subject; ``ImportError`` where the package is not installed."""
