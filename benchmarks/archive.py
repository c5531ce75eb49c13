"""How near the archive comes to the entropy of the weights, and how fast it decodes.

Run as `python -m benchmarks.archive`. Gaussian weights, pruned by magnitude, put on a symmetric grid with one
scale per tensor; sizes are those of whole files that hold the one tensor. The bound is the zero-order entropy of
the integers and the scale, computed here from the integers themselves. `overhead` is file / bound - 1,
and `tensor` the same without what any file has once: the head, the header and the checksum, about 42 bytes.
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
BITS = (2, 4, 8)


def grid_weights(shape: tuple[int, int], sparsity: float, bits: int) -> tuple[Tensor, Tensor]:
    """Weights on a grid of `bits` bits, and their integers."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    magnitudes = weight.abs().flatten()
    kept = magnitudes.argsort(descending=True)[: round(len(magnitudes) * (1 - sparsity))]
    mask = torch.zeros(len(magnitudes), dtype=torch.bool).scatter_(0, kept, True).view(shape)
    largest = 2 ** (bits - 1) - 1
    # A grid as wide as the weights for 8 bits, narrower for few bits, as training would choose it.
    scale = weight.abs().max() * {2: 0.35, 4: 0.6, 8: 1.0}[bits] / largest
    integers = (weight / scale).round().clamp(-largest, largest)
    # What is kept never rounds to zero: the sparsity is the one asked for (but 0 bits of pruning leave zeros be).
    integers = torch.where(integers == 0, weight.sign(), integers) if sparsity else integers
    integers = torch.where(mask, integers, 0.0).long()
    return integers * scale, integers  # from int64: no -0.0, which would be a code of its own


def entropy_bytes(integers: Tensor) -> float:
    """The zero-order entropy, from the definition."""
    counts = torch.unique(integers, return_counts=True)[1].double()
    return float(-(counts * (counts / counts.sum()).log2()).sum() / 8)


def decode_speed(path: Path, size: int) -> float:
    """Bytes of fp32 weights per second of processor time, the best of a few loads."""
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        load_archive(path)
        best = min(best, time.process_time() - start)
    return size / best


def other_weights() -> dict[str, Tensor]:
    """A million weights of other kinds, by what they are."""
    weight = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0)) / 32
    pruned = torch.where(weight.abs() > weight.abs().quantile(0.9), weight, 0.0)
    centers = torch.linspace(-0.1, 0.1, 16) + 0.001 * torch.randn(
        16, generator=torch.Generator().manual_seed(1)
    )
    scales = weight.abs().amax(1, keepdim=True) / 127
    groups = weight.view(-1, 64)
    return {
        "fp32": weight,
        "fp32, 90% zeros": pruned,
        "bf16": weight.bfloat16(),
        "16 clusters": centers[(weight[..., None] - centers).abs().argmin(-1)],
        "int8 per channel": (weight / scales).round().long() * scales,
        "int4 per 64": (groups / (s := groups.abs().amax(1, keepdim=True) / 7))
        .round()
        .long()
        .mul(s)
        .view_as(weight),
        "int64 token ids": (weight * 1e4).long(),
    }


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print_grids(Path(folder) / "m.lcz")
        print_others(Path(folder) / "m.lcz")


def print_others(path: Path) -> None:
    """Other weights than grids, against lzma on their plain bytes."""
    sys.stdout.write(
        "\n| weights | form | bytes | file | x smaller | lzma x smaller | save s | decode MB/s |\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|---|---|\n")
    for name, weight in other_weights().items():
        start = time.process_time()
        save_archive({"weight": weight}, path)
        saving = time.process_time() - start
        contents = inspect_archive(path)
        plain = lzma.compress(weight.view(torch.uint8).numpy().tobytes(), preset=6)
        sys.stdout.write(
            f"| {name} | {contents.tensors[0].form} | {weight.nbytes} | {contents.file_bytes} | {contents.ratio:.2f} "
            f"| {weight.nbytes / len(plain):.2f} | {saving:.2f} | {decode_speed(path, weight.nbytes) / 1e6:.0f} |\n"
        )


def print_grids(path: Path) -> None:
    """Grids of every width and sparsity, against their entropy."""
    out = sys.stdout.write
    out(
        "| shape | sparsity | bits | form | file | bound | overhead | tensor | bits/weight | x smaller | decode MB/s |\n"
    )
    out("|---|---|---|---|---|---|---|---|---|---|---|\n")
    for shape in SHAPES:
        for sparsity in SPARSITIES:
            for bits in BITS:
                weight, integers = grid_weights(shape, sparsity, bits)
                save_archive({"weight": weight}, path)
                loaded = load_archive(path)["weight"]
                if not torch.equal(loaded.view(torch.int32), weight.view(torch.int32)):
                    raise RuntimeError(f"{shape}, {sparsity}, {bits} does not come back bit for bit")
                contents = inspect_archive(path)
                tensor, file, bound = contents.tensors[0], contents.file_bytes, entropy_bytes(integers) + 4
                out(
                    f"| {shape[0]}x{shape[1]} | {sparsity:.0%} | {bits} | {tensor.form} | {file} | {bound:.0f} "
                    f"| {file / bound - 1:+.2%} | {tensor.bytes / bound - 1:+.2%} | {tensor.bits_per_weight:.3f} | {contents.ratio:.1f} "
                    f"| {decode_speed(path, weight.nbytes) / 1e6:.0f} |\n"
                )


if __name__ == "__main__":
    main()
