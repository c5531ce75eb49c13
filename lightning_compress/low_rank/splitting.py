"""Splitting: the layers of a model, its optimizers and copies of it, at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_compress.arguments import check_module
from lightning_compress.carried import carry
from lightning_compress.low_rank.factorization import factors, numerical_rank
from lightning_compress.low_rank.layers import as_matrix, obstacle, split_
from lightning_compress.low_rank.optimizers import Split, split_optimizer_
from lightning_compress.low_rank.ranks import Size
from lightning_compress.low_rank.records import LOW_RANK
from lightning_compress.processes import is_sharded, unshard_
from lightning_compress.targets import is_transposed
from lightning_compress.training.interplay.followers import follower_of

__all__ = ["precision_of", "split_layers_", "split_low_rank"]


def precision_of(weight: Tensor) -> float:
    """Norm of the rounding of a weight to its dtype, as a fraction of its norm, with a margin."""
    return 16 * torch.finfo(weight.dtype).eps


@torch.no_grad()
def split_low_rank(module: nn.Module) -> int:
    """Split the linear and convolution layers whose weights have a low rank; outputs stay the same to rounding.

    It is for runs that leave the layers whole: ``LowRankCallback(split=False)``, and strategies that spawn their
    processes or shard the parameters. Layers that would have more parameters in two stay whole. Checkpoints of a
    LightningModule carry the split.

    Args:
        module: changed in place; the optimizers of a run that goes on are not. One that FSDP2 has sharded is gathered
            first and becomes an ordinary module that holds all of its weights: call it on every rank.

    Returns:
        how many layers were split.

    >>> net = nn.Sequential(nn.Linear(8, 6))
    >>> net[0].weight.data = torch.outer(torch.ones(6), torch.ones(8))
    >>> split_low_rank(net), net[0].rank
    (1, 1)
    """
    check_module(module=module)
    if is_sharded(module):
        unshard_(module)
    ranks = {}
    owners = [id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False)]
    for name, layer in module.named_modules():
        weight = layer._parameters.get("weight")
        if weight is None or obstacle(layer) or owners.count(id(weight)) > 1:
            continue
        matrix = as_matrix(weight, is_transposed(layer))
        rank = max(1, numerical_rank(matrix, precision_of(weight)))
        if rank <= Size(*matrix.shape).most:
            ranks[name] = rank
    if ranks:
        split_layers_(module, ranks)
        if hasattr(module, "on_save_checkpoint"):
            carry(module, LOW_RANK)
    return len(ranks)


@torch.no_grad()
def split_layers_(
    module: nn.Module,
    ranks: Mapping[str, int],
    optimizers: Iterable[Optimizer] = (),
    copies: Iterable[nn.Module] = (),
    followed: Mapping[str, str] | None = None,
) -> None:
    """Split layers of a model, in its optimizers and in copies of it.

    A copy, such as an average of the weights, takes the left factor of the model, and the right one that is nearest.
    So does a network inside the model that follows another.

    Args:
        module: changed in place, as are all others.
        ranks: name of a layer -> rank.
        optimizers: those that step parameters of ``module``.
        copies: modules of the same make.
        followed: copy -> network that it follows, names of submodules.
    """
    splits: dict[Tensor, Split] = {}
    copies = list(copies)
    for name, rank in ranks.items():
        layer = module.get_submodule(name)
        left, right = factors(as_matrix(layer.get_parameter("weight"), is_transposed(layer)), rank)
        found = (follower_of(name, copy, network) for copy, network in (followed or {}).items())
        followers = [follower for follower in found if follower is not None]
        for model in copies:
            for copied in (name, *followers):
                _split_at(model.get_submodule(copied), left)
        splits.update(_split_at(module.get_submodule(follower), left) for follower in followers)
        splits.update([_split_at(layer, left, right)])
    for optimizer in optimizers:
        split_optimizer_(optimizer, splits)


def _split_at(layer: nn.Module, left: Tensor, right: Tensor | None = None) -> tuple[Tensor, Split]:
    """Split a layer with this left factor, and the right one that is nearest by default; its weight and the split."""
    weight, transposed = layer.get_parameter("weight"), is_transposed(layer)
    if right is None:
        right = torch.linalg.pinv(left) @ as_matrix(weight, transposed)
    split_(layer, left, right)
    first, second = (layer.get_parameter(f"{part}.weight") for part in ("first", "second"))
    return weight, Split(first, second, left, right, transposed)
