"""The report as a callback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Console
from rich.measure import Measurement
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_compress.deploy import export
from lightning_compress.deploy.export import FORMATS
from lightning_compress.deploy.writers.onnx import require_onnx
from lightning_compress.example_inputs import ExampleInput, on_device
from lightning_compress.macs import count_macs
from lightning_compress.report.comparisons import Comparison, remarks
from lightning_compress.report.measures.deployments import Deployment, measure_deployments
from lightning_compress.report.measures.profiles import ModelProfile, profile
from lightning_compress.report.views.plots import draw
from lightning_compress.report.views.tables import as_dict, markdown, rich_table, tables
from lightning_compress.timing import Latency, measure_latencies
from lightning_compress.training.copies import uncompiled, uncompiled_copy

__all__ = ["CompressionReport"]

_Cost = TypeVar("_Cost")

_ANY = 10_000  # columns: more than any table has
_SAMPLES = 64  # outputs are compared on so many


class CompressionReport(Callback):
    """Weigh the model before and after ``fit``, print the difference, and leave it in files with the model.

    Zeros, bytes in the file, multiply-accumulates and measured latency are shown apart, for none of them follows from
    another. The last validation metrics before compression began stand beside the last ones of the run.

    =================  ====================================================================================
    ``report.md``      the tables, per layer and in total
    ``report.json``    the same as numbers
    ``report.png``     zeros per layer and sizes, where matplotlib (extra ``plots``) is installed
    ``model.lcz``      the compressed weights; see :func:`~lightning_compress.archive.load_archive`
    ``model.onnx``...  the deployable model, where ``formats`` asks for it; see
                       :func:`~lightning_compress.deploy.export`
    =================  ====================================================================================

    A ``.onnx`` file is run in the runtimes that are installed, ONNX Runtime and OpenVINO, beside the dense model: which
    layers compute in integers, latency, and whether outputs are those of PyTorch.

    Any callback of the Trainer with a method ``report() -> dict[str, object]`` adds rows of its own, and one with
    an attribute ``strength`` says by a value of 0 that it has not begun to compress.

    Args:
        dirpath: folder of the files; by default that of the Trainer's first logger, or ``default_root_dir``.
        example_input: what ``forward`` takes, a tensor, a tuple of positional or a mapping of keyword arguments; by
            default the module's ``example_input_array``, else the first sample of the first tensor in the first
            training batch.
        formats: suffixes of the model files to write: ``".lcz"``, ``".onnx"``, ``".pt2"``.

    Raises:
        ValueError: an unknown format; after ``fit`` and after the report was written, a model that cannot be exported.
        TypeError: ``formats`` is one string.
        ImportError: when ``fit`` begins, ``.onnx`` without the extra ``onnx``.
        OSError: when ``fit`` begins, the folder cannot be made.

    ======================  ==============================================================================
    ``on_fit_start``        profile the dense model, and keep a copy of it on the CPU to time it in the end
    ``on_train_batch_start``  take the example from the first batch, if there is no other
    ``on_validation_end``   note the metrics
    ``teardown``            all callbacks have settled: profile the compressed model, print, write
    ======================  ==============================================================================
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        example_input: ExampleInput | None = None,
        formats: Sequence[str] = (".lcz",),
    ) -> None:
        if isinstance(formats, str):
            raise TypeError(f"need formats as a list, got the string {formats!r}: write [{formats!r}]")
        unknown = [suffix for suffix in formats if suffix not in FORMATS]
        if unknown:
            raise ValueError(f"need formats out of {', '.join(FORMATS)}, got {', '.join(map(repr, unknown))}")
        self.dirpath = dirpath
        self.example_input = example_input
        self.formats = tuple(formats)
        self._reset()

    def _reset(self) -> None:
        self._before: ModelProfile | None = None
        self._twin: nn.Module | None = None
        self._uncosted = "needs example_input"
        self._untimed = "not measured: resumed run"
        self._metrics_before: dict[str, float] = {}
        self._metrics: dict[str, float] = {}
        self._dense_steps = 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "before": asdict(self._before) if self._before else None,
            "metrics_before": self._metrics_before,
            "metrics": self._metrics,
            "dense_steps": self._dense_steps,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = ModelProfile.from_dict(state_dict["before"]) if state_dict["before"] else None
        self._metrics_before = state_dict["metrics_before"]
        self._metrics = state_dict["metrics"]
        self._dense_steps = state_dict["dense_steps"]
        # What the model of the checkpoint is by now is not the dense one.
        self._twin = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._reset()
            if ".onnx" in self.formats:
                require_onnx()  # not after hours of training

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._directory = Path(self.dirpath or trainer.log_dir or trainer.default_root_dir)
        self._device = pl_module.device
        self._sharded = any(isinstance(parameter, DTensor) for parameter in pl_module.parameters())
        self._example = pl_module.example_input_array if self.example_input is None else self.example_input
        self._samples = self._example
        self._waiting = trainer.is_global_zero and not self._sharded  # for the first batch
        if trainer.is_global_zero:
            self._directory.mkdir(parents=True, exist_ok=True)  # what cannot be written is to be known before the run
        if self._before is not None or not (trainer.is_global_zero or self._sharded):
            return
        self._before = profile(pl_module)
        if self._sharded:
            return
        self._twin = self._twin_of(pl_module)
        if self._example is not None:
            self._before = replace(self._before, macs=count_macs(pl_module, self._example))

    def _twin_of(self, module: LightningModule) -> nn.Module | None:
        """The dense twin, on the CPU; None and the reason noted where the module cannot be copied."""
        try:
            return uncompiled_copy(module).cpu()
        except Exception as error:  # an attribute that is a lock, a generator, a tensor with a graph behind it
            self._untimed = f"not measured: no copy of the module: {type(error).__name__}: {error}".split("\n")[0]
            return None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not self._waiting:
            return
        self._waiting = False
        tensor = _first_tensor(batch)
        if self._example is None and tensor is not None:
            self._example = tensor[:1].detach().clone()
        if isinstance(self._example, Tensor) and tensor is not None and _alike(self._example, tensor):
            self._samples = tensor[:_SAMPLES].detach().cpu()
        if self._before and self._before.macs is None:
            self._before = replace(self._before, macs=self._tried(lambda example: count_macs(pl_module, example)))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._earlier = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        # What training logged is still there, as the very tensors that were there before.
        fresh = {
            name: value.item()
            for name, value in trainer.callback_metrics.items()
            if value is not self._earlier.get(name) and value.numel() == 1
        }
        self._metrics = fresh
        if all(getattr(callback, "strength", 0.0) == 0.0 for callback in trainer.callbacks):  # type: ignore[attr-defined]
            self._metrics_before, self._dense_steps = fresh, trainer.global_step

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or self._before is None:
            return
        after = profile(pl_module)
        if not trainer.is_global_zero:
            return
        if not self._sharded:
            after = replace(after, macs=self._tried(lambda example: count_macs(pl_module, example)))
        latencies = self._latencies(pl_module)
        failed = self._export(pl_module)
        comparison = Comparison(
            before=self._before,
            after=after,
            latencies=latencies,
            uncosted=self._uncosted,
            metrics_before=self._metrics_before,
            metrics_after=self._metrics,
            dense_steps=self._dense_steps,
            steps=trainer.global_step,
            methods=_methods(trainer.callbacks),  # type: ignore[attr-defined]
            deployments=() if failed else self._deployments(pl_module),
        )
        self._twin = None
        write(comparison, self._directory)
        show(comparison)
        written = ", ".join(["report.md", "report.json", *(f"model{suffix}" for suffix in self.formats)])
        if failed is not None:
            raise failed
        rank_zero_info(f"{written} are in {self._directory}")

    def _export(self, module: LightningModule) -> Exception | None:
        """Write the model files; the error of one that cannot be written, for the report comes first."""
        failures: list[Exception] = []
        for suffix in self.formats:
            with _kept(failures):
                export(module, self._directory / f"model{suffix}", self._example)
        return failures[0] if failures else None

    def _deployments(self, module: LightningModule) -> tuple[Deployment, ...]:
        if self._twin is None or ".onnx" not in self.formats or self._example is None or self._samples is None:
            return ()
        example, samples = (on_device(given, torch.device("cpu")) for given in (self._example, self._samples))
        return measure_deployments(self._twin.cpu(), module.cpu(), self._directory / "model.onnx", example, samples)

    def _latencies(self, module: LightningModule) -> tuple[Latency, Latency] | None:
        """Of the dense twin and the compressed model, where the run was; the strategy has moved both to the CPU."""
        if self._twin is None:
            self._uncosted = "not measured: sharded" if self._sharded else self._untimed
            return None
        models = [self._twin.to(self._device), uncompiled(module).to(self._device)]
        measured = self._tried(lambda example: measure_latencies(models, example))
        module.cpu()
        return (measured[0], measured[1]) if measured else None

    def _tried(self, cost: Callable[[ExampleInput], _Cost]) -> _Cost | None:
        """The cost of the example, or None and the reason noted: no run is lost for it."""
        if self._example is None:
            return None
        try:
            return cost(self._example)
        except Exception as error:
            self._uncosted = f"needs example_input: {type(error).__name__}: {error}".split("\n")[0]
            return None


@contextmanager
def _kept(failures: list[Exception]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        failures.append(error)


def write(comparison: Comparison, directory: Path) -> None:
    """Write ``report.md``, ``report.json`` and, where matplotlib is installed, ``report.png``."""
    (directory / "report.md").write_text(markdown(comparison), encoding="utf-8")
    (directory / "report.json").write_text(json.dumps(as_dict(comparison), indent=2, default=str), encoding="utf-8")
    try:
        draw(comparison).savefig(directory / "report.png", dpi=120)
    except ImportError:
        rank_zero_info("report.png is left out: pip install 'lightning-compress[plots]' to have it drawn")


def show(comparison: Comparison) -> None:
    """Print the tables: drawn in a terminal, as Markdown elsewhere."""
    console = Console()
    if not console.is_terminal:
        print(markdown(comparison))
        return
    for table in tables(comparison):
        drawn = rich_table(table)
        # What a narrow terminal has no room for is wrapped by the terminal itself.
        least = Measurement.get(console, console.options.update(width=_ANY), drawn).minimum
        Console(width=max(console.width, least)).print(drawn)
        if table.title == "Model":
            console.print(*(f"- {remark}" for remark in remarks(comparison)), sep="\n", highlight=False)


def _alike(example: Tensor, batch: Tensor) -> bool:
    return example.shape[1:] == batch.shape[1:] and example.dtype == batch.dtype


def _first_tensor(batch: Any) -> Tensor | None:
    """The first tensor with a batch dimension in nested sequences and mappings."""
    if isinstance(batch, Tensor):
        return batch if batch.ndim else None
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((tensor for value in values if (tensor := _first_tensor(value)) is not None), None)


def _methods(callbacks: list[Callback]) -> dict[str, dict[str, object]]:
    """What each callback reports, by its class; numbered if there are several of a class."""
    reports: dict[str, dict[str, object]] = {}
    for callback in callbacks:
        if report := getattr(callback, "report", None):
            same = sum(name.split(" ")[0] == type(callback).__name__ for name in reports)
            reports[f"{type(callback).__name__}{f' {same + 1}' if same else ''}"] = report()
    return reports
