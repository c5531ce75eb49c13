"""A small BERT with random weights and a tokenizer of letters, as a folder of transformers."""

from __future__ import annotations

import string
from pathlib import Path

from transformers import BertConfig, BertModel, BertTokenizerFast

__all__ = ["write_encoder"]


def write_encoder(folder: Path) -> None:
    """Write the encoder into a folder."""
    folder.mkdir(parents=True)
    pieces = [*string.ascii_lowercase, *string.digits]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *(f"##{piece}" for piece in pieces)]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
