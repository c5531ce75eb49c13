"""Ranges of activations for each token: accuracy of a small transformer, and the latency of BERT in ONNX Runtime.

The transformer of ``examples/text`` is trained for six epochs in float, then for two more of each kind from the same
weights, on docstrings; accuracies are those on the 451 test docstrings. BERT has random weights, four layers of width
256 and 32 tokens; its latencies, by turns on one thread, are fractions of those of the float file.
``python -m benchmarks.dynamic 2`` takes two seeds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import torch
from lightning.pytorch import Callback, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from examples.classifier import Classifier
from examples.text import DocstringData, Transformer
from lightning_compress import QATCallback, export
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.quantization import profiles
from lightning_compress.schedules import Constant
from lightning_compress.timing import time_ratio

KINDS: dict[str, Callable[[], list[Callback]]] = {
    "float": list,
    "W8A8, one range": lambda: [QATCallback(8, schedule=Constant())],
    "W8A8, a range for each token": lambda: [QATCallback(8, schedule=Constant(), profile=profiles.Dynamic())],
    "W4A4, one range": lambda: [QATCallback(4, activation_bits=4, schedule=Constant())],
    "W4A4, a range for each token": lambda: [
        QATCallback(4, activation_bits=4, schedule=Constant(), profile=profiles.Dynamic())
    ],
}


def main(seeds: int = 1) -> None:
    """Print both tables."""
    quiet()
    torch.set_num_threads(1)
    runs = [_accuracies(seed) for seed in range(seeds)]
    rows = [
        [kind, ", ".join(f"{run[kind]:.2f}" for run in runs), f"{mean(run[kind] for run in runs):.2f}"]
        for kind in KINDS
    ]
    show("The transformer of examples/text, test accuracy in %", ["weights and activations", "by seed", "mean"], rows)
    show("BERT in ONNX Runtime, latency against float", ["", "1 sample", "16 samples"], _latencies())


def _accuracies(seed: int) -> dict[str, float]:
    seed_everything(seed, verbose=False)
    data = DocstringData(batch_size=32)
    data.seed = seed
    dense = Classifier(Transformer(classes=4), classes=4, lr=1e-3)
    trainer(max_epochs=6).fit(dense, data)
    found = {}
    for kind, callbacks in KINDS.items():
        module = Classifier(Transformer(classes=4), classes=4, lr=2e-4)
        module.load_state_dict(dense.state_dict())
        run = trainer(*callbacks(), max_epochs=2)
        run.fit(module, data)
        found[kind] = 100 * run.test(module, data, verbose=False)[0]["test_acc"]
    return found


class _Bert(Classifier):
    def __init__(self) -> None:
        sizes = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
        config = BertConfig(vocab_size=2000, num_labels=4, **sizes)
        super().__init__(BertForSequenceClassification(config), classes=4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=x).logits
        return logits


def _latencies() -> list[list[str]]:
    tokens = torch.randint(2000, (32, 32))
    data = DataLoader(TensorDataset(tokens, torch.randint(4, (32,))), 16)
    rows = []
    with TemporaryDirectory() as folder:
        runs = {}
        for kind in ("float", "W8A8, one range", "W8A8, a range for each token"):
            seed_everything(0, verbose=False)
            module: nn.Module = _Bert()
            trainer(*KINDS[kind](), max_epochs=2).fit(module, data)
            runs[kind] = OnnxRuntime().load(export(module.eval(), Path(folder) / "bert.onnx", tokens[:8]))
        for kind, run in runs.items():
            pairs = ((partial(run, [tokens[:size]]), partial(runs["float"], [tokens[:size]])) for size in (1, 16))
            ratios = [time_ratio(*pair, rounds=30, clock=time.process_time) for pair in pairs]
            rows.append([kind, *(f"{ratio:.2f}" for ratio in ratios)])
    return rows


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
