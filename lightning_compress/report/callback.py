"""The report as a callback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning_compress.arguments import check_path, signature_repr
from lightning_compress.deploy import Writer
from lightning_compress.deploy.export import writers_of
from lightning_compress.deploy.formats import size_on_disk
from lightning_compress.example_inputs import ExampleInput, check_example_input, check_runs, device_of, on_device
from lightning_compress.lightnings import (
    LightningModule,
    Trainer,
    check_one_package,
    end_bars,
    provisional_key,
    rank_zero_info,
)
from lightning_compress.processes import whole_copy
from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.folders import run_folder
from lightning_compress.report.incoming import Baseline, FullSanityCheck, compared_with, was_trained
from lightning_compress.report.loggers import publish
from lightning_compress.report.measures.bench import Bench
from lightning_compress.report.measures.profiles import ModelProfile, profile, shipped_macs
from lightning_compress.report.measures.validations import Validations
from lightning_compress.report.measures.versions import versions
from lightning_compress.report.methods import configuration_of, methods_of, modes_of
from lightning_compress.report.saved_reports import NAME
from lightning_compress.report.views.outputs import check_places, show, write, write_models
from lightning_compress.state_dicts import explain_loading
from lightning_compress.training.copies import merged_copy
from lightning_compress.training.endings.validations import ValidatesLast

__all__ = ["CompressionReport"]


class CompressionReport(ValidatesLast):
    """Measure the model before and after ``fit``, print the difference, and write it to files beside the model.

    Zeros, bytes in the file, multiply-accumulates and measured latency are shown apart, because none of them follows
    from another. Losses stand first: a metric that became worse, a layer without weights, a file that failed its check.

    The metrics of the last validation stand beside those of ``baseline``. Without one, a model that was trained before
    is validated as it comes in, by a sanity check on all batches: that is a model whose batch normalizations have seen
    batches, or one that a method compresses from the first step on. A model that is trained from random weights has no
    metrics before. Where a callback writes weights at the end of training, as ``StochasticWeightAveraging`` does, the
    model is validated once more.

    =================  ====================================================================================
    ``report.html``    all of it as one page: headlines, totals, pictures, layers to sort, how to load the files
    ``report.md``      the tables, per layer and in total
    ``report.json``    the same as numbers; see :func:`~lightning_compress.report.read_report`
    ``pictures``       a folder of PNG and SVG, if matplotlib (extra ``plots``) is installed
    ``model.lcz``      the compressed model; see :func:`~lightning_compress.loading.load_compressed`
    ``model.onnx``...  the deployable model, for each suffix in ``formats``; see
                       :func:`~lightning_compress.deploy.export`
    =================  ====================================================================================

    A ``.onnx`` file is run beside the dense model in ONNX Runtime, OpenVINO and ONNX Runtime Web, where they are
    installed. The report shows which layers compute in integers, the latency, and whether the outputs are those of
    PyTorch.

    ``Trainer(fast_dev_run=True)`` writes, checks and deletes the files: a format that fails is found at once.

    The loggers of the Trainer get the numbers; TensorBoard gets the tables and pictures, and Weights & Biases and
    MLflow get all files.

    Any callback of the Trainer with a method ``report() -> dict[str, object]`` adds rows of its own. A callback whose
    attribute ``strength`` is 0 has not begun to compress.

    Args:
        dirpath: folder of the files, in which they replace those of earlier runs; by default a folder of its own for
            every run: that of the Trainer's first logger, or ``compression_reports/version_0``, ``version_1``... in
            ``default_root_dir``.
        baseline: metrics of the dense model to compare with, by the names that validation logs: ``{"val_acc": 0.93}``;
            or the ``report.json`` of a dense run, or a folder with one in it.
        formats: suffixes of the model files to write: ``".lcz"``, ``".onnx"``, ``".pt2"``, ``".pte"``,
            ``".tflite"``, ``".mlpackage"``; or writers with options.
        example_input: input of ``forward``: a tensor, a tuple of positional or a mapping of keyword arguments; by
            default the module's ``example_input_array``, else the first sample of the first training batch.

    Raises:
        ValueError: an unknown format; before the first step, an example input that ``forward`` does not take, or none
            for a format that needs one; after the report was written, a model that cannot be exported.
        TypeError: ``formats`` is one string, or ``example_input`` is of another kind.
        ImportError: when ``fit`` begins, a format whose packages are not installed.
        OSError: a baseline that does not exist; when ``fit`` begins, a folder that cannot be made, or one in which
            something else stands where a folder of the report would replace it.

    Attributes:
        result: what was measured, after ``fit``; None before, and on the other processes of a distributed run.

    ========================  ============================================================================
    ``on_fit_start``          profile the dense model, and keep a copy of it on the CPU to time it at the end
    ``on_train_batch_start``  take the example from the first batch, if there is no other
    ``on_validation_end``     note the metrics
    ``teardown``              all callbacks have settled: profile the compressed model, print, write
    ========================  ============================================================================
    """

    _set_up = False

    def __init__(
        self,
        dirpath: str | Path | None = None,
        *,
        baseline: Mapping[str, float] | str | Path | None = None,
        formats: Sequence[str | Writer] = (".lcz",),
        example_input: ExampleInput | None = None,
    ) -> None:
        if dirpath is not None:
            check_path(dirpath=dirpath)
        if example_input is not None:
            check_example_input(example_input)
        self._dense = Baseline(baseline)
        self.dirpath = dirpath
        self.baseline = baseline
        self.formats = formats
        self.example_input = example_input
        self._writers = writers_of(formats)
        self._reset()

    def __repr__(self) -> str:
        return signature_repr(self)

    @property
    def state_key(self) -> str:
        return super().state_key if self._set_up else provisional_key(self)

    def _reset(self) -> None:
        self.result: Comparison | None = None
        self._before: ModelProfile | None = None
        self._validations = Validations()
        self._sanity: FullSanityCheck | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"before": asdict(self._before) if self._before else None, **self._validations.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = ModelProfile.from_dict(state_dict["before"]) if state_dict["before"] else None
        self._validations.load_state_dict(state_dict)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._set_up = True
        explain_loading(trainer.strategy)
        if stage == "fit":
            check_one_package(trainer, pl_module)
            _check_single(trainer)
            self._reset()
            for writer in self._writers:
                writer.require()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.watch_validations(trainer, pl_module)
        self._dense.check(trainer)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._directory = run_folder(trainer, self.dirpath)
            check_places(self._directory, self._writers)
        self._bench = bench = Bench(pl_module, self.example_input)
        self._waiting = trainer.is_global_zero and not bench.sharded  # for the first batch
        if bench.sharded:
            self._check_example()
        if self.baseline is None and not trainer.fast_dev_run and was_trained(pl_module, trainer.callbacks):  # type: ignore[attr-defined]
            self._sanity = FullSanityCheck(trainer)
        # The model of a resumed run is not the dense one any more.
        if self._before is not None or not (trainer.is_global_zero or bench.sharded):
            return
        self._before = profile(pl_module)
        if bench.sharded:
            return
        bench.keep(pl_module)
        if bench.example is not None:
            check_runs(pl_module, on_device(bench.example, device_of(pl_module)))
            self._before = replace(self._before, macs=shipped_macs(pl_module, bench.example))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if not self._waiting:
            return
        self._waiting = False
        self._bench.take(batch, pl_module)
        self._check_example()
        if self._before and self._before.macs is None:
            self._before = replace(self._before, macs=self._bench.macs(pl_module))

    def _check_example(self) -> None:
        """Refuse, before the first step, a format that needs an example where there is none."""
        needy = [writer.suffix for writer in self._writers if writer.needs_example]
        if needy and self._bench.example is None:
            raise ValueError(f"need example_input to write {', '.join(needy)}, got none: {self._bench.reason}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validations.begin(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        self._dense.look(trainer)
        if self._sanity is not None or not trainer.sanity_checking:
            self._validations.end(trainer, pl_module)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close_sanity_check()

    def _close_sanity_check(self) -> None:
        if self._sanity is not None:
            self._sanity.close()
            self._sanity = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close_sanity_check()
        self.forget_validations()
        vars(self).pop("_bench", None)  # it holds the dense model

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close_sanity_check()  # without validation there is none
        if stage != "fit" or self._before is None:
            return
        self._changed = not self.saw_last(pl_module)
        self.forget_validations()
        after = profile(pl_module)
        module = whole_copy(pl_module) if self._bench.sharded else merged_copy(pl_module)
        if not trainer.is_global_zero:
            return
        after = replace(after, macs=self._bench.macs(pl_module))
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            with TemporaryDirectory() as folder:
                self._finish(trainer, module, (self._before, after), Path(folder))
            self.result = replace(self.result, path=None) if self.result else None
        else:
            self._finish(trainer, module, (self._before, after), self._directory)

    def _finish(
        self, trainer: Trainer, module: LightningModule, profiles: tuple[ModelProfile, ModelProfile], folder: Path
    ) -> None:
        """Measure, write and print."""
        latencies = self._bench.latencies(module)
        paths = [folder / f"model{writer.suffix}" for writer in self._writers]
        failures = write_models(module, self._bench.example, self._writers, folder)
        deployments = [
            deployment
            for writer, path in zip(self._writers, paths, strict=True)
            if writer.runtimes and not failures
            for deployment in self._bench.deployments(module, path, writer)
        ]
        seen = self._validations
        self.result = Comparison(
            before=profiles[0],
            after=profiles[1],
            latencies=latencies,
            uncosted=self._bench.reason,
            metrics_before=self._dense.metrics or seen.before,
            metrics_after=seen.last,
            unvalidated=trainer.global_step - seen.step if seen.last else 0,
            changed=self._changed,
            compared_with=compared_with(self.baseline),
            modes=modes_of(trainer.callbacks),  # type: ignore[attr-defined]
            steps=trainer.global_step,
            methods=methods_of(trainer.callbacks, trainer.lightning_module),  # type: ignore[attr-defined]
            deployments=tuple(deployments),
            files={path.name: size_on_disk(path) for path in paths if path.name not in failures},
            failures={name: str(error) for name, error in failures.items()},
            history=tuple(seen.history),
            configuration=configuration_of(trainer.callbacks),  # type: ignore[attr-defined]
            versions=versions(),
            path=folder / NAME,
        )
        del self._bench
        written = write(self.result, folder)
        end_bars(trainer)
        show(self.result)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            publish(trainer.loggers, self.result, folder)
        for failure in failures.values():
            raise failure
        if not any(name.endswith(".png") for name in written):
            rank_zero_info("pictures are left out: pip install 'lightning-compress[plots]' to have them drawn")
        names = ", ".join([*written, *(path.name for path in paths)])
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_info(
                f"the report leaves no files of a fast_dev_run: {names} were written and checked, and are deleted"
            )
        else:
            rank_zero_info(f"{names} are in {folder}")


def _check_single(trainer: Trainer) -> None:
    reports = [one for one in trainer.callbacks if isinstance(one, CompressionReport)]  # type: ignore[attr-defined]
    if len(reports) > 1:
        raise ValueError(
            f"need one CompressionReport in a Trainer, got {len(reports)}: one writes all formats, into one dirpath"
        )
