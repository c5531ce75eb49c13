"""Networks of packages built on PyTorch, in a LightningModule of a few lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import lightning.pytorch
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.ecosystem.cells import Subject
from lightning_compress.example_inputs import call, first_samples, float_outputs

__all__ = ["NETWORKS", "Network"]

SAMPLES, BATCH = 64, 8


class Network(lightning.pytorch.LightningModule):
    """Trains a network to put out targets.

    Args:
        make: makes the network.
        optimizer: makes an optimizer of parameters.
    """

    def __init__(self, make: Callable[[], nn.Module], optimizer: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.network = make()
        self.optimizer = optimizer or (lambda parameters: torch.optim.AdamW(parameters, 1e-3))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The first tensor that the network puts out."""
        return float_outputs(self.network, kwargs or args)[0]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, targets = batch
        outputs: Tensor = call(self, inputs)
        return nn.functional.mse_loss(outputs.flatten(1)[:, :4], targets)

    def configure_optimizers(self) -> Any:
        return self.optimizer([p for p in self.parameters() if p.requires_grad])


def _subject(make: Callable[[], nn.Module], inputs: Any, optimizer: Callable[[Any], Any] | None = None) -> Subject:
    """A network that takes ``inputs``: tensors of ``SAMPLES`` samples, one or a mapping by argument."""

    def seeded() -> nn.Module:
        torch.manual_seed(0)
        return make()

    def sample(index: int) -> tuple[Any, Tensor]:
        chosen = {k: v[index] for k, v in inputs.items()} if isinstance(inputs, Mapping) else inputs[index]
        return chosen, torch.linspace(-1, 1, 4) * (index % 4)

    init_args = {"make": seeded, "optimizer": optimizer}
    return Subject(
        module=lambda: Network(**init_args),
        batches=lambda: DataLoader([sample(index) for index in range(SAMPLES)], BATCH),
        example=first_samples(inputs, 2),
        init_args=init_args,
    )


def _normal(*shape: int) -> Tensor:
    return torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(1))


def _tokens(vocabulary: int, length: int) -> Tensor:
    return torch.randint(vocabulary, (SAMPLES, length), generator=torch.Generator().manual_seed(1))


def _convolutions() -> nn.Module:
    kernels = {"kernel_size": 3, "padding": 1}
    layers = [nn.Conv2d(4, 16, **kernels), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, **kernels), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))


def _transformers_bert() -> Subject:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    tokens = {"input_ids": _tokens(50, 12), "attention_mask": torch.ones(SAMPLES, 12, dtype=torch.long)}
    return _subject(lambda: BertForSequenceClassification(BertConfig(**sizes, vocab_size=50, num_labels=4)), tokens)


def _transformers_gpt2() -> Subject:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50, "n_positions": 16, "use_cache": False}
    return _subject(lambda: GPT2LMHeadModel(GPT2Config(**sizes)), {"input_ids": _tokens(50, 12)})


def _transformers_vit() -> Subject:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = {**sizes, "image_size": 16, "patch_size": 4, "num_labels": 4}
    return _subject(lambda: ViTForImageClassification(ViTConfig(**config)), {"pixel_values": _normal(3, 16, 16)})


def _peft() -> Subject:
    from peft import LoraConfig, get_peft_model
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}

    def make() -> nn.Module:
        dense = BertForSequenceClassification(BertConfig(**sizes, vocab_size=50, num_labels=4))
        return get_peft_model(dense, LoraConfig(r=4, target_modules=["query", "value"], modules_to_save=["classifier"]))

    return _subject(make, {"input_ids": _tokens(50, 12)})


def _torch_geometric(*include: str) -> Subject:
    from torch_geometric.nn import DenseGCNConv, Linear

    class Graphs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = Linear(8, 16)
            self.convs = nn.ModuleList([DenseGCNConv(16, 16), DenseGCNConv(16, 16)])
            self.head = Linear(16, 4)

        def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
            x = self.encode(x).relu()
            for conv in self.convs:
                x = conv(x, adjacency).relu()
            return self.head(x.mean(1))

    subject = _subject(Graphs, {"x": _normal(6, 8), "adjacency": (_normal(6, 6) > 0).float()})
    return replace(subject, include=include or subject.include)


def _x_transformers() -> Subject:
    from x_transformers import Decoder, TransformerWrapper

    layers = {"dim": 32, "depth": 2, "heads": 4, "attn_dim_head": 8}
    return _subject(
        lambda: TransformerWrapper(num_tokens=50, max_seq_len=16, attn_layers=Decoder(**layers)), _tokens(50, 12)
    )


def _efficientnet_pytorch() -> Subject:
    from efficientnet_pytorch import EfficientNet
    from efficientnet_pytorch.utils import efficientnet

    blocks, options = efficientnet(width_coefficient=0.25, depth_coefficient=0.3, image_size=32, num_classes=4)
    return _subject(lambda: EfficientNet(blocks, options), _normal(3, 32, 32))


def _pytorch_tcn() -> Subject:
    from pytorch_tcn import TCN

    return _subject(lambda: TCN(4, [16, 16, 16], kernel_size=3, output_projection=4), _normal(4, 24))


def _einops() -> Subject:
    from einops.layers.torch import EinMix, Rearrange, Reduce

    def make() -> nn.Module:
        mix = EinMix("b t c -> b t d", weight_shape="c d", bias_shape="d", c=8, d=16)
        split = Rearrange("b (t k) c -> b t (k c)", k=2)
        return nn.Sequential(mix, nn.GELU(), split, nn.Linear(32, 16), Reduce("b t c -> b c", "mean"), nn.Linear(16, 4))

    return _subject(make, _normal(6, 8))


def _torchdiffeq() -> Subject:
    from torchdiffeq import odeint

    class Flow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.field = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 8))
            self.head = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(odeint(lambda _, y: self.field(y), x, torch.linspace(0, 1, 4), method="euler")[-1])

    return _subject(Flow, _normal(8))


def _schedulefree() -> Subject:
    from schedulefree import AdamWScheduleFree

    def train(parameters: Any) -> Any:
        optimizer = AdamWScheduleFree(parameters, 1e-2)
        optimizer.train()
        return optimizer

    return _subject(_convolutions, _normal(4, 8, 8), train)


def _pytorch_optimizer() -> Subject:
    from pytorch_optimizer import Lion

    return _subject(_convolutions, _normal(4, 8, 8), lambda parameters: Lion(parameters, 1e-3))


def _monai() -> Subject:
    from monai.networks.nets import UNet

    sizes = {"channels": (8, 16, 32), "strides": (2, 2), "num_res_units": 1}
    return _subject(lambda: UNet(spatial_dims=2, in_channels=1, out_channels=2, **sizes), _normal(1, 16, 16))


def _sentence_transformers() -> Subject:
    from sentence_transformers.models import Dense, Pooling

    class Sentences(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(50, 16)
            self.pool = Pooling(16)
            self.dense = Dense(16, 4)

        def forward(self, input_ids: Tensor) -> Tensor:
            features = {"token_embeddings": self.words(input_ids), "attention_mask": torch.ones_like(input_ids)}
            return self.dense(self.pool(features))["sentence_embedding"]

    return _subject(Sentences, {"input_ids": _tokens(50, 12)})


def _kornia() -> Subject:
    from kornia.models.vit import VisionTransformer

    sizes = {"image_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
    return _subject(lambda: VisionTransformer(**sizes), _normal(3, 16, 16))


def _e3nn() -> Subject:
    from e3nn.nn import FullyConnectedNet

    return _subject(lambda: FullyConnectedNet([8, 32, 32, 4], torch.tanh), _normal(8))


def _tsai() -> Subject:
    from tsai.models.InceptionTime import InceptionTime

    return _subject(lambda: InceptionTime(4, 4, nf=8, depth=3), _normal(4, 24))


NETWORKS: dict[str, Callable[[], Subject]] = {
    "transformers, BERT": _transformers_bert,
    "transformers, GPT-2": _transformers_gpt2,
    "transformers, ViT": _transformers_vit,
    "peft, LoRA on BERT": _peft,
    "torch_geometric, dense GCN": _torch_geometric,
    "torch_geometric, with include": lambda: _torch_geometric("*", "network.*weight"),
    "x-transformers, decoder": _x_transformers,
    "efficientnet_pytorch, narrow": _efficientnet_pytorch,
    "pytorch-tcn, TCN": _pytorch_tcn,
    "einops, EinMix": _einops,
    "torchdiffeq, neural ODE": _torchdiffeq,
    "schedulefree, AdamW": _schedulefree,
    "pytorch_optimizer, Lion": _pytorch_optimizer,
    "monai, UNet": _monai,
    "sentence-transformers, pooling": _sentence_transformers,
    "kornia, ViT": _kornia,
    "e3nn, fully connected": _e3nn,
    "tsai, InceptionTime": _tsai,
}
"""Name of a row -> the subject; ``ImportError`` where the package is not installed."""
