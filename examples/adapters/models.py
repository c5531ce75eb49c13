"""Pretrained encoders of transformers, with LoRA by PEFT."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModel

__all__ = ["Encoder", "source"]


class Encoder(nn.Module):
    """A pretrained encoder, the mean over its words, and a linear layer. LoRA and the linear layer are trained.

    Papers: Reimers and Gurevych, "Sentence-BERT", https://arxiv.org/abs/1908.10084 (2019); Hu et al., "LoRA: Low-Rank
    Adaptation of Large Language Models", https://arxiv.org/abs/2106.09685 (2021).

    Args:
        classes: number of classes.
        encoder: name on the Hugging Face hub, a folder, or an installed package with the folder ``model``.
        rank: rank of the adapters of all linear layers of the encoder.
    """

    def __init__(
        self, classes: int = 4, encoder: str = "sentence-transformers/all-MiniLM-L6-v2", rank: int = 8
    ) -> None:
        super().__init__()
        base = AutoModel.from_pretrained(source(encoder), add_pooling_layer=False)
        self.encoder = get_peft_model(base, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))
        self.fc = nn.Linear(base.config.hidden_size, classes)
        self.train()  # transformers loads models for evaluation

    def forward(self, texts: Tensor) -> Tensor:
        """``(N, length)`` numbers of word pieces, 0 for padding -> ``(N, classes)`` logits."""
        is_word = (texts != 0).long()
        states = self.encoder(input_ids=texts, attention_mask=is_word).last_hidden_state
        weights = is_word / is_word.sum(1, keepdim=True).clamp(min=1)
        logits: Tensor = self.fc((states * weights.unsqueeze(2)).sum(1))
        return logits


def source(encoder: str) -> str:
    """Where transformers finds an encoder: the folder ``model`` of an installed package, else the name itself."""
    spec = find_spec(encoder) if encoder.isidentifier() else None
    folders = [Path(folder) / "model" for folder in (spec.submodule_search_locations or ())] if spec else []
    return str(folders[0]) if folders and folders[0].is_dir() else encoder
