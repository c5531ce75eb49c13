"""How near the archive comes to the entropy of the weights, and how fast it decodes.

Run as `python -m benchmarks.archive`.

First table: Gaussian weights, pruned by magnitude, on a symmetric grid with one scale. The bound is the
zero-order entropy of the integers, computed here from the integers, and the scale. The ratios to it are those
of the tensor's block, and of the whole file with its one tensor (head, header, checksum: 42 bytes more).

Second table: a million weights of other kinds, beside lzma on their plain bytes.
"""

import lzma
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from lightning_compress.archive import inspect_archive, load_archive, save_archive

SHAPES = ((100, 101), (300, 784), (1024, 1024))
SPARSITIES = (0.0, 0.5, 0.9, 0.95, 0.98)
RANGES = {2: 0.35, 4: 0.6, 8: 1.0}  # how much of the largest weight the grid of so many bits covers


def grid_weights(shape: tuple[int, int], sparsity: float, bits: int) -> tuple[Tensor, Tensor]:
    """Weights on a grid of `bits` bits, and their integers."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    largest = 2 ** (bits - 1) - 1
    scale = weight.abs().max() * RANGES[bits] / largest
    integers = (weight / scale).round().clamp(-largest, largest)
    if sparsity:  # what is kept is not zero, so that the sparsity is what was asked for
        integers = torch.where(integers == 0, weight.sign(), integers)
        pruned = weight.abs().flatten().argsort()[: round(weight.numel() * sparsity)]
        integers.view(-1)[pruned] = 0
    return integers.long() * scale, integers.long()  # by way of int64: -0.0 would be a code of its own


def other_weights() -> dict[str, Tensor]:
    """A million weights, by what they are."""
    weight = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0)) / 32
    clusters = torch.linspace(-0.1, 0.1, 16).add(torch.randn(16, generator=torch.Generator().manual_seed(1)) / 1000)
    channels = weight.abs().amax(1, keepdim=True) / 127
    groups = weight.view(-1, 64)
    steps = groups.abs().amax(1, keepdim=True) / 7
    return {
        "fp32": weight,
        "fp32, 90 % zeros": torch.where(weight.abs() > weight.abs().quantile(0.9), weight, 0.0),
        "bf16": weight.bfloat16(),
        "16 clusters": clusters[(weight[..., None] - clusters).abs().argmin(-1)],
        "8 bits, scale per channel": (weight / channels).round().long() * channels,
        "4 bits, scale per 64": ((groups / steps).round().long() * steps).view_as(weight),
        "int64": (weight * 1e4).long(),
    }


def entropy_bytes(integers: Tensor) -> float:
    """The zero-order entropy, from its definition."""
    counts = torch.unique(integers, return_counts=True)[1].double()
    return float(-(counts * (counts / counts.sum()).log2()).sum() / 8)


def decode_speed(path: Path, weights: int) -> float:
    """Megabytes of fp32 weights per second of processor time, in the best of five loads."""
    seconds = []
    for _ in range(5):
        start = time.process_time()
        load_archive(path)
        seconds.append(time.process_time() - start)
    return 4 * weights / min(seconds) / 1e6


def archive(weight: Tensor, path: Path) -> None:
    """Write weights and see that they come back bit for bit."""
    save_archive({"weight": weight}, path)
    loaded = load_archive(path)["weight"]
    if not torch.equal(loaded.view(torch.uint8), weight.view(torch.uint8)):
        raise RuntimeError("the weights do not come back bit for bit")


def row(*cells: object) -> None:
    """Print a row of a table."""
    sys.stdout.write("| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells))
    sys.stdout.write(" |\n")


def print_grids(path: Path) -> None:
    """Grids of every width and sparsity, against their entropy."""
    row(
        "shape",
        "sparsity",
        "bits",
        "form",
        "bound",
        "tensor",
        "file",
        "tensor/bound",
        "file/bound",
        "bits/weight",
        "MB/s",
    )
    row(*["---"] * 11)
    for shape in SHAPES:
        for sparsity in SPARSITIES:
            for bits in RANGES:
                weight, integers = grid_weights(shape, sparsity, bits)
                archive(weight, path)
                contents = inspect_archive(path)
                tensor, bound = contents.tensors[0], entropy_bytes(integers) + 4
                ratios = f"{tensor.bytes / bound:.4f}", f"{contents.file_bytes / bound:.4f}"
                sizes = round(bound), round(tensor.bytes), contents.file_bytes
                speed = round(decode_speed(path, weight.numel()))
                row(
                    "x".join(map(str, shape)),
                    sparsity,
                    bits,
                    tensor.form,
                    *sizes,
                    *ratios,
                    tensor.bits_per_weight,
                    speed,
                )


def print_others(path: Path) -> None:
    """Other weights than grids, against lzma."""
    row("weights", "form", "plain", "file", "x smaller", "lzma: x smaller", "save s", "MB/s")
    row(*["---"] * 8)
    for name, weight in other_weights().items():
        start = time.process_time()
        archive(weight, path)
        seconds = time.process_time() - start
        contents = inspect_archive(path)
        plain = weight.nbytes / len(lzma.compress(weight.view(torch.uint8).numpy().tobytes()))
        sizes = weight.nbytes, contents.file_bytes, contents.ratio, plain
        row(name, contents.tensors[0].form, *sizes, seconds, round(decode_speed(path, weight.numel())))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print_grids(Path(folder) / "m.lcz")
        sys.stdout.write("\n")
        print_others(Path(folder) / "m.lcz")
