"""A small Llama with LoRA: quantized while it is fine-tuned, or after merging; perplexity, files, memory and time.

A model of 0.8 million parameters, bytes as tokens, learns definitions of nouns. LoRA of rank 8 on its 28 projections
then learns definitions of adjectives. Three ways lead to a merged model of few bits in groups of 32: quantize after
merging; quantize the base, train LoRA beside it, merge and quantize again; or QATCallback compresses the sum in
training. The last model is written as a folder of compressed-tensors, which transformers loads.

``pip install lightning-compress[adapters,transformers]``, and WordNet 3, whose folder the environment variable
``WORDNET`` names (by default that of Debian's wordnet-base).
"""

from __future__ import annotations

import copy
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch import Callback
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from benchmarks import adapters
from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from benchmarks.turns import Stopwatch
from lightning_compress import QATCallback, export
from lightning_compress.adapters import HalfLatents
from lightning_compress.deploy.writers.compressed_tensors import CompressedTensors

LENGTH, BATCH, UNSEEN = 128, 16, 200
STEPS_OF_THE_BASE, STEPS = 600, 200


def main() -> None:
    """Print perplexities, then the size, memory and time of the model that is compressed in training."""
    quiet()
    torch.set_num_threads(1)
    alone, plain = _tuned(_base())
    untuned, tuned = _perplexity(_base()), _perplexity(alone.merge_and_unload())
    print(
        f"perplexity of a byte of unseen definitions: {untuned:.3f} before LoRA, {tuned:.3f} with LoRA, not quantized",
    )
    rows, costs = [], [["LoRA alone", f"{1000 * plain.cpu / STEPS:.0f}", "0.0", _megabytes(alone), "0"]]
    for bits in (4, 3):
        after = _perplexity(_quantized(copy.deepcopy(alone), bits))
        beside, _ = _tuned(_quantized(_base(), bits))
        unmerged = _perplexity(beside)
        again = _perplexity(_quantized(beside.merge_and_unload(), bits))
        for more in ([], [HalfLatents()]):
            seen = _Latents()
            model, watch = _tuned(_base(), _bits(bits), seen, *more)
            name = f"{bits} bits" + (", half latents" if more else "")
            file, error = _exported(model)
            merged = _perplexity(model.merge_and_unload())
            costs.append(
                [name, f"{1000 * watch.cpu / STEPS:.0f}", f"{seen.megabytes:.2f}", f"{file:.2f}", f"{error:.0e}"]
            )
            rows.append([name, *(f"{value:.3f}" for value in (after, unmerged, again, merged))])
    show(
        "Perplexity", ["method", "after merging", "base + LoRA", "the same, merged, again", "in training, merged"], rows
    )
    show("Costs", ["method", "CPU ms of a step", "latents, MB", "folder, MB", "largest difference of a logit"], costs)


class Language(L.LightningModule):
    """A causal language model. ``(N, length)`` tokens -> the mean cross-entropy of the next ones."""

    def __init__(self, model: Any, lr: float) -> None:
        super().__init__()
        self.model, self.lr = model, lr

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.model(input_ids=batch, labels=batch).loss
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], self.lr)


class _Latents(Callback):
    megabytes = 0.0

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        runs = [run for callback in trainer.callbacks if (run := getattr(callback, "_run", None)) is not None]
        self.megabytes = sum(latent.nbytes for latent in runs[0]._latents.latents().values()) / 1e6


def _bits(count: int) -> QATCallback:
    return adapters.bits(count, include=["*_proj*"])


@cache
def _trained_base() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=256, max_position_embeddings=LENGTH, **sizes))
    return _fit(model, "noun", STEPS_OF_THE_BASE, 2e-3)[0]


def _base() -> Any:
    return copy.deepcopy(_trained_base())


def _tuned(model: Any, *callbacks: Callback) -> tuple[Any, Stopwatch]:
    """LoRA beside the model, trained on adjectives."""
    torch.manual_seed(0)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    return _fit(get_peft_model(model, config), "adj", STEPS, 2e-3, *callbacks)


def _fit(model: Any, part: str, steps: int, lr: float, *callbacks: Callback) -> tuple[Any, Stopwatch]:
    rows = _rows(part)[:-UNSEEN]
    chosen = torch.randint(0, len(rows), (steps, BATCH), generator=torch.Generator().manual_seed(1))
    watch = Stopwatch()
    run = trainer(*callbacks, watch, max_epochs=1, gradient_clip_val=1.0)
    run.fit(Language(model, lr).train(), DataLoader([rows[numbers] for numbers in chosen], batch_size=None))
    return model, watch


def _quantized(model: Any, bits: int) -> Any:
    """The weights as they are now, merged, on grids: a step of length 0."""
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    return _fit(model.requires_grad_(True), "adj", 1, 0.0, _bits(bits))[0]


@torch.no_grad()
def _perplexity(model: Any) -> float:
    model.eval()
    losses = [model(input_ids=rows, labels=rows).loss for rows in _rows("adj")[-UNSEEN:].split(50)]
    return float(torch.stack(losses).mean().exp())


def _exported(model: Any) -> tuple[float, float]:
    """Megabytes of the folder, and the largest difference of a logit of the model that transformers loads from it."""
    rows = _rows("adj")[-UNSEEN:][:20]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = export(Language(model.eval(), 0.0), Path(folder) / "llama", writer=CompressedTensors())
        loaded = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        error = (
            (loaded(input_ids=rows).logits - copy.deepcopy(model).merge_and_unload()(input_ids=rows).logits).abs().max()
        )
        return sum(file.stat().st_size for file in path.iterdir()) / 1e6, float(error)


def _megabytes(model: Any) -> str:
    return f"{sum(p.nbytes for p in copy.deepcopy(model).merge_and_unload().parameters()) / 1e6:.2f}"


@cache
def _rows(part: str) -> Tensor:
    """Bytes of definitions, one after the other, in rows that are shuffled."""
    folder = Path(os.environ.get("WORDNET", "/usr/share/wordnet"))
    lines = (folder / f"data.{part}").read_text().splitlines()
    texts = [line.split("| ")[1].strip() for line in lines if "| " in line and not line.startswith("  ")]
    tokens = torch.tensor(list("\n".join(texts).encode("ascii", "ignore")))
    rows = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]


if __name__ == "__main__":
    main()
