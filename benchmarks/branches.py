"""What removing whole residual branches would bring: accuracy and latency in ONNX Runtime, against dense.

No callback does it. The blocks to go are given here, by the inner channels that each block keeps; a block that keeps
none becomes its shortcut plus a constant. Each structure is trained as it is from the start, and reached from the dense
network by holding more and more inner channels at zero, the smallest of each block. Data, recipe and steps are those
of :mod:`benchmarks.channels`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.channels import latency, train
from benchmarks.tables import quiet, show
from examples.fashion_mnist import FashionData
from examples.fashion_mnist.models import ResNet
from lightning_compress.schedules import Cubic, Schedule

STRUCTURES = (
    ((0,), (32,), (32,)),
    ((0,), (16,), (64,)),
    ((0, 0, 0), (32, 0, 32), (64, 32, 64)),
)
"""Inner channels of each block of each stage; dense they are 16, 32 and 64."""
SCHEDULES = (Cubic(0.15, 0.7), Cubic(0.0, 0.3))


class Shortcut(nn.Module):
    """A block without its branch: what batch normalisation makes of zeros is a constant."""

    def __init__(self, shortcut: nn.Module, channels: int) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.shortcut(maps) + self.shift)


class Ramp(Callback):
    """Holds the smallest inner channels of each block at zero, until only those that it keeps are left."""

    def __init__(self, structure: Sequence[Sequence[int]], schedule: Schedule) -> None:
        self.kept = [channels for stage in structure for channels in stage]
        self.schedule = schedule
        self.gone: dict[Any, Tensor] = {}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        done = trainer.global_step / trainer.estimated_stepping_batches
        if trainer.global_step % 10 == 0 and done < 0.8:
            for (_, block), kept in zip(_blocks(pl_module.model), self.kept, strict=True):  # type: ignore[arg-type]
                size = block.conv1.weight.square().sum((1, 2, 3)) + block.conv2.weight.square().sum((0, 2, 3))
                self.gone[block] = size.argsort()[: round((len(size) - kept) * self.schedule(done))]
        for block, channels in self.gone.items():
            for tensor in (block.conv1.weight, block.norm1.weight, block.norm1.bias):
                tensor[channels] = 0
            block.conv2.weight[:, channels] = 0


def main(seed: int = 0) -> None:
    """Print one row for each structure."""
    quiet()
    torch.set_num_threads(1)
    data = FashionData(images=20_000, seed=seed)
    rows = []
    for structure in STRUCTURES:
        dense = partial(ResNet, 6 * len(structure[0]) + 2)
        scratch, small = train(partial(_built, structure), data, seed)
        ramped = [train(dense, data, seed, Ramp(structure, schedule))[0] for schedule in SCHEDULES]
        wide = dense().eval()
        rows.append(
            [
                f"ResNet-{6 * len(structure[0]) + 2}",
                str(structure),
                f"{_macs(small) / _macs(wide):.3f}",
                *(f"{accuracy:.2f}" for accuracy in (scratch, *ramped)),
                *(f"{latency(wide, small, batch):.2f}" for batch in (1, 64)),
            ]
        )
    ramps = [f"{schedule.begin:g} to {schedule.until:g}" for schedule in SCHEDULES]
    header = ["model", "inner channels", "MACs", "from scratch", *ramps, "latency b1", "latency b64"]
    show("Without whole branches; accuracies in %, the others as shares of dense", header, rows)


def _blocks(model: Any) -> Iterator[tuple[nn.Sequential, Any]]:
    for stage in (model.stage1, model.stage2, model.stage3):
        yield from ((stage, block) for block in list(stage))


def _built(structure: Sequence[Sequence[int]]) -> nn.Module:
    model = ResNet(6 * len(structure[0]) + 2)
    kept = [channels for stage in structure for channels in stage]
    for number, ((stage, block), inner) in enumerate(zip(_blocks(model), kept, strict=True)):
        outputs = block.conv2.out_channels
        if not inner:
            stage[number % len(structure[0])] = Shortcut(block.shortcut, outputs)
        elif inner < outputs:
            first = block.conv1
            block.conv1 = nn.Conv2d(first.in_channels, inner, 3, first.stride, padding=1, bias=False)
            block.norm1 = nn.BatchNorm2d(inner)
            block.conv2 = nn.Conv2d(inner, outputs, 3, padding=1, bias=False)
    return model


def _macs(model: nn.Module) -> float:
    counts: list[float] = []

    def note(layer: Any, _: Any, output: Tensor) -> None:
        counts.append(layer.weight.numel() * output[0, 0].numel())

    handles = [layer.register_forward_hook(note) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    model(torch.zeros(1, 1, 28, 28))
    for handle in handles:
        handle.remove()
    return sum(counts)


if __name__ == "__main__":
    main()
