"""Momentum networks: frozen copies of a trained network inside the same module, as target networks are too.

The code of the user writes such a copy from the network that it copies, parameter by parameter. Once channels are
removed from the network, the shapes of the two differ.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

__all__ = ["MomentumNetworks"]


class MomentumNetworks:
    """The frozen copies in ``module`` of networks that lose channels.

    Args:
        module: the model.
        names: names of the parameters that lose channels.

    >>> module = nn.ModuleDict({"net": nn.Linear(3, 2), "target": nn.Linear(3, 2).requires_grad_(False)})
    >>> networks = MomentumNetworks(module, ["net.weight"])
    >>> networks.check()
    >>> _ = module["target"].weight.mul_(0.9)
    >>> networks.check()
    Traceback (most recent call last):
    ValueError: need remove=False to prune the channels of 'net', got 'target', a copy that other code writes ...
    """

    def __init__(self, module: nn.Module, names: Collection[str]) -> None:
        shapes = {name: _shapes(part) for name, part in module.named_modules() if name}
        frozen = [name for name, part in module.named_modules() if name and shapes[name] and _is_frozen(part)]
        self._of: dict[str, str] = {}  # copy -> the network that it copies
        for copied in shapes:
            if any(name.startswith(f"{copied}.") for name in names):
                same = [name for name in frozen if name not in self._of and shapes[name] == shapes[copied]]
                self._of |= dict.fromkeys(same, copied)
        self._weights = {copy: _smallest(module.get_submodule(copy)) for copy in self._of}
        self._noted = {copy: weight.clone() for copy, weight in self._weights.items()}

    def check(self) -> None:
        """Refuse to go on if a copy has been written.

        Raises:
            ValueError: a copy has other values than at construction.
        """
        for copy, noted in self._noted.items():
            if not torch.equal(self._weights[copy], noted):
                raise ValueError(
                    f"need remove=False to prune the channels of {self._of[copy]!r}, got {copy!r}, a copy that other "
                    "code writes from it during training: their shapes would differ. Channels then stay as zeros, "
                    "which remove_zero_channels removes after fit"
                )


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in module.named_parameters()}


def _is_frozen(module: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in module.parameters())


def _smallest(module: nn.Module) -> Tensor:
    """The smallest weight that is no vector, if there is one: a bias may stay zero although the copy is written."""
    return min(module.parameters(), key=lambda parameter: (parameter.ndim < 2, parameter.numel())).detach()
