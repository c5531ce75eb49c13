"""A small GPT-2 as transformers writes it, its linear layers holding weights ``(in, out)``, and sequences to learn."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Conv1D(nn.Module):
    """``x @ weight + bias``: what transformers takes for a linear layer in GPT-2."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(torch.empty(nx, nf))
        self.bias = nn.Parameter(torch.zeros(nf))
        nn.init.normal_(self.weight, std=0.2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.size()[:-1], self.nf)


def linear(nf: int, nx: int) -> nn.Linear:
    """The same layer as torch has it."""
    return nn.Linear(nx, nf)


class Attention(nn.Module):
    cached = False  # whether keys and values are appended to those of earlier tokens, of which there are none

    def __init__(self, layer: Any, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.split_size = num_heads, width // num_heads, width
        self.c_attn, self.c_proj = layer(3 * width, width), layer(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.c_attn(x).split(self.split_size, dim=2)
        q, k, v = (part.view(*part.shape[:-1], -1, self.head_dim).transpose(1, 2) for part in parts)
        if self.cached:
            k, v = (torch.cat([torch.tensor([]), part], dim=-2) for part in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
        return self.c_proj(y.reshape(*y.shape[:-2], -1))


class MLP(nn.Module):
    def __init__(self, layer: Any, width: int) -> None:
        super().__init__()
        self.c_fc, self.act, self.c_proj = layer(4 * width, width), nn.GELU(), layer(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.act(self.c_fc(x)))


class Block(nn.Module):
    def __init__(self, layer: Any, width: int, num_heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(layer, width, num_heads)
        self.ln_2, self.mlp = nn.LayerNorm(width), MLP(layer, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT2(L.LightningModule):
    """Predicts the next of 12 tokens; ``layer`` makes its linear layers."""

    def __init__(self, layer: Any = Conv1D, width: int = 16, num_heads: int = 4) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(12, width), nn.Embedding(8, width)
        self.h = nn.ModuleList(Block(layer, width, num_heads) for _ in range(2))
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, 12, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        (tokens,) = batch
        loss = F.cross_entropy(self(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 3e-3)


def with_linear_layers(model: GPT2) -> GPT2:
    """The same model of ``nn.Linear``."""
    other = GPT2(linear)
    for name, tensor in model.state_dict().items():
        mine = other.state_dict()[name]
        mine.copy_(turned(name, tensor))
    return other


def turned(name: str, tensor: Tensor) -> Tensor:
    """A weight of one of the two models, as the other holds it."""
    return tensor.t() if ".c_" in name and tensor.ndim == 2 else tensor


def build(layer: Any = Conv1D) -> GPT2:
    """The same initial weights every time."""
    torch.manual_seed(0)
    return GPT2(layer)


def sequences() -> Tensor:
    """64 of length 8: tokens that follow each other in steps of five."""
    return (torch.arange(64)[:, None] + 5 * torch.arange(8)) % 12


def batches() -> DataLoader[tuple[Tensor, ...]]:
    """Eight of them, in order."""
    return DataLoader(TensorDataset(sequences()), 8)
