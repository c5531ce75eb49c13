"""Comparisons: a model before and after its compression, and remarks on the difference."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_compress.messages import listed, plain
from lightning_compress.report.measures.deployments import Deployment
from lightning_compress.report.measures.histories import Moment
from lightning_compress.report.measures.profiles import LayerProfile, ModelProfile
from lightning_compress.timing import Latency

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["FEW", "INCOMING", "Comparison", "remarks"]

FEW = 0.02
"""Fraction of zeros that rounding leaves, and that needs no remark."""

_RECURRENT = re.compile(r"weight_(ih|hh|hr)_l\d+(_reverse)?$")  # names of torch's

_CELL = 40  # letters of a reason that has room in a cell

INCOMING = "the model as it came into fit"
"""The model that the metrics before are of, where there is no baseline."""


@dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """The dense model at the start of ``fit``, and the compressed model at its end: the result of a report.

    In a notebook it shows as tables.

    Attributes:
        before: profile of the dense model.
        after: profile of the compressed model.
        latencies: of a forward pass in PyTorch before and after, measured in turns.
        uncosted: the reason why multiply-accumulates or latencies are missing.
        metrics_before: metrics of the model that the compressed one is compared with; empty if they are not known.
        metrics_after: metrics of the last validation.
        unvalidated: optimizer steps after the last validation: its metrics are those of an earlier model if there are
            any.
        changed: whether the last validation saw other weights than ``fit`` left: its metrics are another model's.
        compared_with: that model, in words.
        modes: metric name -> ``"min"`` or ``"max"``, as the monitors of the Trainer say.
        steps: optimizer steps of the run.
        files: file name -> bytes, of the model files that were written.
        failures: file name -> error, of the model files that could not be written or failed their check.
        methods: callback name -> its report.
        deployments: the exported files in the runtimes.
        history: metrics and strengths of the methods at every validation.
        configuration: callback name -> the call that makes it.
        versions: package -> version, of those that took part.
        path: the ``report.json``; None if there is none.
    """

    before: ModelProfile
    after: ModelProfile
    latencies: tuple[Latency, Latency] | None = None
    uncosted: str = "needs example_input"
    metrics_before: Mapping[str, float] = field(default_factory=dict)
    metrics_after: Mapping[str, float] = field(default_factory=dict)
    unvalidated: int = 0
    changed: bool = False
    compared_with: str = ""
    modes: Mapping[str, str] = field(default_factory=dict)
    steps: int = 0
    files: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    deployments: tuple[Deployment, ...] = ()
    history: tuple[Moment, ...] = ()
    configuration: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = field(default=None, compare=False)

    @property
    def layers(self) -> list[tuple[LayerProfile | None, LayerProfile | None]]:
        """Each parameter tensor before and after; None if it does not exist."""
        before, after = ({layer.name: layer for layer in model.layers} for model in (self.before, self.after))
        return [(before.get(name), after.get(name)) for name in before | after]

    @property
    def quantized(self) -> bool:
        """Whether some parameters became integers."""
        bits = {layer.name: layer.bits for layer in self.before.layers}
        return any(layer.bits < bits.get(layer.name, 0) for layer in self.after.layers)

    @property
    def pruned(self) -> bool:
        """Whether there are zeros, before or after, that are worth a row."""
        return max(self.before.sparsity, self.after.sparsity) > FEW

    @property
    def why_uncosted(self) -> str:
        """The text of a cell whose multiply-accumulates or latency are missing; a long reason is a remark."""
        return self.uncosted if len(self.uncosted) <= _CELL else "not measured"

    @property
    def places(self) -> dict[str, tuple[Latency, Latency]]:
        """Latencies before and after by where they were measured: in PyTorch, or a file in its runtime."""
        found = {f"PyTorch on {self.latencies[1].device}": self.latencies} if self.latencies else {}
        files = {f"{one.file} in {one.runtime}": one.latencies for one in self.deployments if one.latencies}
        return {**found, **files}

    @property
    def shipped(self) -> tuple[str, tuple[Latency, Latency]] | None:
        """The place and the latencies that a user will see, if they were measured.

        For a model on integers these are a file's in its runtime: PyTorch simulates integers in float.
        """
        places = self.places
        files = [name for name in places if not name.startswith("PyTorch")]
        chosen = files if self.quantized else [*(name for name in places if name not in files), *files]
        return (chosen[0], places[chosen[0]]) if chosen else None

    def bytes(self, suffix: str) -> int | None:
        """Bytes of the model file with a suffix; None if the run did not write it."""
        name = f"model{suffix}"
        archive = self.after.archive_bytes if suffix == ".lcz" and name not in self.failures else None
        return self.files.get(name, archive)

    def metric(self, name: str) -> float | None:
        """A metric of the last validation; None if there is none, or it was not finite."""
        value = self.metrics_after.get(name, math.nan)
        return value if math.isfinite(value) else None

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers and text, for ``json.dumps``, as in ``report.json``."""
        return _view("views.tables").as_dict(self)  # type: ignore[no-any-return]

    def to_pandas(self) -> DataFrame:
        """One row for each parameter tensor, with its numbers before and after.

        Raises:
            ImportError: pandas is not installed.
        """
        return _view("views.notebooks").layer_frame(self)

    def plot(self, name: str | None = None) -> Figure:
        """A picture of the comparison.

        Args:
            name: one of :attr:`pictures`; by default the first.

        Raises:
            ImportError: matplotlib is not installed (extra ``plots``).
            ValueError: there is no such picture, because nothing of its kind was measured or compressed.
        """
        return _view("pictures").draw(self, name)  # type: ignore[no-any-return]

    @property
    def pictures(self) -> tuple[str, ...]:
        """Names of the pictures that show something."""
        return tuple(_view("pictures").drawable(self))

    def __eq__(self, other: object) -> bool:
        """Whether both are the same in ``report.json``, where NaN is equal to itself."""
        if not isinstance(other, Comparison):
            return NotImplemented
        return json.dumps(self.to_dict(), default=str) == json.dumps(other.to_dict(), default=str)

    def __repr__(self) -> str:
        return _view("views.notebooks").as_text(self)  # type: ignore[no-any-return]

    def _repr_html_(self) -> str:
        return _view("views.notebooks").as_html(self)  # type: ignore[no-any-return]


def _view(name: str) -> Any:
    """A module that imports this one."""
    return import_module(f"lightning_compress.report.{name}")


def remarks(comparison: Comparison) -> list[str]:
    """Sentences that say which numbers of a comparison do not follow from others."""
    before, after = comparison.before, comparison.after
    said = []
    if after.sparsity - before.sparsity > FEW and after.parameters == before.parameters:
        said.append(
            f"{after.sparsity:.1%} of the parameters are zeros, and the shapes are unchanged. Dense kernels multiply "
            "by zeros as by other numbers, so this sparsity cannot make this runtime faster or the state dict smaller. "
            "It makes the archive smaller."
        )
    missing = {"MACs": not (before.macs and after.macs), "latency": not comparison.shipped}
    if any(missing.values()) and comparison.why_uncosted != comparison.uncosted:
        what = " and ".join(name for name, is_missing in missing.items() if is_missing)
        said.append(f"Missing {what}: {comparison.uncosted.removeprefix('not measured: ')}")
    if comparison.shipped:
        said.append(_on_latency(comparison, *comparison.shipped))
    if comparison.latencies and comparison.quantized and after.activations:
        said.append(_on_simulation(comparison, *comparison.latencies))
    if comparison.quantized and not after.activations:
        said.append("Weights alone are integers: a runtime unpacks them, and multiplies in float.")
    said += [
        f"{found.runtime} computes these layers of {found.file} in float: {listed(found.floating)}."
        for found in comparison.deployments
        if found.integer and found.floating
    ]
    if comparison.metrics_before:
        said.append(f"The metrics before are those of {comparison.compared_with}.")
    elif comparison.metrics_after:
        said.append(
            "The metrics before are missing: the model was not validated before fit. Pass those of a dense model, as "
            "CompressionReport(baseline={'val_acc': 0.9}), or the folder of its run."
        )
    if comparison.steps and not comparison.metrics_after:
        said.append("There are no metrics after: no validation of this run logged any.")
    return list(map(plain, said))


def _on_latency(comparison: Comparison, place: str, latencies: tuple[Latency, Latency]) -> str:
    before, after = latencies
    where = f"in eager {place}" if place.startswith("PyTorch") else f"of {place}"
    said = f"Latency is the median (and quartiles) {where}, before and after in turns."
    if not after.differs(before):
        return f"{said} The quartiles overlap, so no difference was measured."
    same = comparison.before.macs == comparison.after.macs
    return said + (" The difference is not due to fewer multiply-accumulates." if same else "")


def _on_simulation(comparison: Comparison, before: Latency, after: Latency) -> str:
    ratio = after.ratio(before)
    slower = f", {ratio:.2f} times the time of the dense model" if math.isfinite(ratio) else ""
    share = _integer_share(comparison)
    most = "" if share is None else f" At most {share:.0%} of the MACs run in integers: layers with integer weights."
    return f"PyTorch simulates integers in float{slower}, which says nothing of the files.{most}"


def _integer_share(comparison: Comparison) -> float | None:
    """Fraction of the multiply-accumulates in layers whose weights became integers; None if none were counted.

    Recurrent layers unpack their weights, and multiply in float.
    """
    macs, bits = comparison.after.macs, {layer.name: layer.bits for layer in comparison.before.layers}
    if macs is None or not macs.total:
        return None
    names = [one.name for one in comparison.after.layers if one.bits < bits.get(one.name, 0)]
    integer = {name.rpartition(".")[0] for name in names if not _RECURRENT.search(name)}
    return sum(count for name, count in macs.layers.items() if name in integer) / macs.total
