"""Small networks, one for each way in which channels depend on each other."""

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_compress.channels.groups import mask_


class Residual(nn.Module):
    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(2 * width)
        self.conv2 = nn.Conv2d(2 * width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1))


class Dense(nn.Module):
    """Channels of two layers side by side, through an activation that does not keep zero."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.c = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.sigmoid(self.a(x))
        x = torch.sigmoid(self.c(self.norm(torch.cat([a, self.b(a)], 1))))
        return self.head(x.mean((2, 3)))


class Mobile(nn.Module):
    """Expand, depthwise, squeeze and excite, project; then a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(1, 16, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.squeeze = nn.Conv2d(16, 4, 1)
        self.excite = nn.Conv2d(4, 16, 1)
        self.project = nn.Conv2d(16, 8, 1)
        self.slope = nn.PReLU(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.depthwise(F.relu6(self.expand(x))))
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(self.grouped(self.slope(self.project(x))).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width: int = 16, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        split = (*x.shape[:2], self.num_heads, -1)
        q, k, v = (layer(x).view(split).transpose(1, 2) for layer in (self.query, self.key, self.value))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """Attention by heads, a gated feed-forward, layer scale; the width is normalized and must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = Attention()
        self.gate = nn.Linear(16, 32)
        self.down = nn.Linear(16, 16)
        self.scale = nn.Parameter(torch.full((16,), 1e-6))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(1, 2))
        x = (x + self.attention(self.norm1(x))).mean(1)
        a, b = self.gate(self.norm2(x)).chunk(2, dim=1)
        return self.head(x + self.scale * self.down(F.silu(a) * b))


class Blocks(nn.Module):
    """Three residual blocks: a plain one that adds in place, a bottleneck that excites itself, a feed-forward."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.plain1, self.plain2 = (
            nn.Conv2d(width, 16, 3, padding=1, bias=False),
            nn.Conv2d(16, width, 3, padding=1, bias=False),
        )
        self.plain_norm1, self.plain_norm2 = nn.BatchNorm2d(16), nn.BatchNorm2d(width)
        self.shortcut = nn.Conv2d(width, 2 * width, 1, 2)
        self.neck1, self.neck2 = nn.Conv2d(width, 4, 1), nn.Conv2d(4, 12, 3, 2, padding=1)
        self.neck3 = nn.Conv2d(12, 2 * width, 1, bias=False)
        self.neck_norm1, self.neck_norm2, self.neck_norm3 = (nn.BatchNorm2d(n) for n in (4, 12, 2 * width))
        self.squeeze, self.excite = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.feed_norm = nn.LayerNorm(2 * width)
        self.feed1, self.feed2 = nn.Linear(2 * width, 32), nn.Linear(32, 2 * width)
        self.head = nn.Linear(2 * width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        branch = self.plain_norm2(self.plain2(F.relu(self.plain_norm1(self.plain1(x)))))
        branch += x
        x = F.relu(branch)
        branch = F.relu(self.neck_norm2(self.neck2(F.relu(self.neck_norm1(self.neck1(x))))))
        branch = branch * torch.sigmoid(self.excite(F.relu(self.squeeze(branch.mean((2, 3), keepdim=True)))))
        x = (self.shortcut(x) + self.neck_norm3(self.neck3(branch))).mean((2, 3))
        return self.head(x + self.feed2(F.gelu(self.feed1(self.feed_norm(x)))))


class Module(L.LightningModule):
    def __init__(self, optimizer=torch.optim.AdamW, net: nn.Module | None = None, **settings) -> None:
        super().__init__()
        self.net = net if net is not None else Residual()
        self._optimizer = lambda parameters: optimizer(parameters, lr=1e-2, **settings)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        optimizer = self._optimizer(self.parameters())
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def data(batch_size: int = 8) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(64, 1, 8, 8, generator=generator)
    return DataLoader(TensorDataset(images, torch.randint(0, 3, (64,), generator=generator)), batch_size)


def doubles() -> DataLoader:
    """The batches of :func:`data` in double precision."""
    images, labels = data().dataset.tensors
    return DataLoader(TensorDataset(images.double(), labels), 8)


def outcome(module: nn.Module) -> Tensor:
    """Outputs of the module in evaluation, of four images."""
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    module.eval()
    with torch.no_grad():
        return module(images.to(next(module.parameters()).dtype))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int, gone: Any = None) -> None:
    """One step on random images in double precision, after which the entries in ``gone`` are set to zero."""
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
    optimizer.zero_grad()
    model(images).square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        mask_(model.state_dict(), gone or {})
