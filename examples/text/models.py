"""A transformer for short texts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Transformer"]


class Transformer(nn.Module):
    """Encoder blocks over the words of a text, the mean over its words, and a linear layer.

    Every product with a weight is a separate linear layer, so that each can be quantized and pruned.

    Paper: Vaswani et al., "Attention Is All You Need", https://arxiv.org/abs/1706.03762 (2017).

    Args:
        classes: number of classes.
        words: size of the vocabulary; word 0 is padding.
        length: largest number of words in a text.
        width: size of a word's vector.
        heads: number of heads of each attention; must divide ``width``.
        blocks: number of encoder blocks.

    Raises:
        ValueError: ``heads`` does not divide ``width``.
    """

    def __init__(
        self, classes: int = 4, words: int = 4096, length: int = 64, width: int = 64, heads: int = 4, blocks: int = 2
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"need heads that divide width={width}, got heads={heads}")
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, classes)

    def forward(self, texts: Tensor) -> Tensor:
        """``(N, length)`` word numbers -> ``(N, classes)`` logits."""
        is_word = texts != 0
        x = self.words(texts) + self.places
        for block in self.blocks:
            x = block(x, is_word)
        weights = is_word / is_word.sum(1, keepdim=True).clamp(min=1)
        logits: Tensor = self.fc((self.norm(x) * weights.unsqueeze(2)).sum(1))
        return logits


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor, is_word: Tensor) -> Tensor:
        read = self.norm1(x)
        heads = [
            layer(read).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        ]
        mixed = F.scaled_dot_product_attention(*heads, attn_mask=is_word[:, None, None, :])
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.fc2(self.relu(self.fc1(self.norm2(x))))
