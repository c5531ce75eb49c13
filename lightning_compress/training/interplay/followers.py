"""Followers: targets that no optimizer steps and that code of the user writes, such as momentum and target networks.

A running mean of projected weights would stand still on a grid. Once a follower has been written, it therefore holds
its latent, and is projected where it is validated and saved, and at the end of ``fit``. A network that loses channels
or is split changes its shapes, and the network that follows it changes with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from lightning_compress.latent import LatentWeights
from lightning_compress.processes import local, on_any_process

__all__ = ["Followers", "FollowingNetworks", "follower_of", "followers_text"]


class Followers:
    """Finds the followers among the targets.

    Args:
        latents: the latents of the targets.
    """

    def __init__(self, latents: LatentWeights) -> None:
        self._parameters: Mapping[str, Tensor] = {}
        self._latents = latents
        self._stepped: set[str] = set()
        self._noted: dict[str, Tensor] = {}  # values of the others, as this package left them

    def attend(self, parameters: Mapping[str, Tensor]) -> None:
        """Find followers among these targets, name -> parameter; they may have replaced others."""
        self._parameters = parameters
        self._noted = {}

    def step(self, names: Collection[str]) -> None:
        """Note that an optimizer steps the named parameters: they are no followers."""
        self._stepped.update(names)
        for name in names:
            self._noted.pop(name, None)

    @torch.no_grad()
    def look(self) -> None:
        """Open the parameters that other code has written since :meth:`note`; a collective."""
        if not (others := self._others()):
            return
        unknown = others.keys() - self._noted.keys()
        written = unknown.intersection(self._latents.overwritten()) if unknown else set()
        flags = {name: (others[name] != noted).any() for name, noted in self._noted.items()}
        changed = on_any_process(list(flags.values()))
        written.update(name for name, differs in zip(flags, changed, strict=True) if differs)
        self._latents.open(written)
        for name in written:
            self._noted.pop(name, None)

    @torch.no_grad()
    def note(self) -> None:
        """Note the present values, after this package has written into parameters."""
        self._noted = {name: weight.clone() for name, weight in self._others().items()}

    def release(self) -> None:
        """Forget the noted values."""
        self._noted = {}

    def _others(self) -> dict[str, Tensor]:
        """The targets that no optimizer has stepped and that are not open; none before the first step."""
        known = self._stepped | self._latents.opened
        return {name: local(p.detach()) for name, p in self._parameters.items() if self._stepped and name not in known}


class FollowingNetworks:
    """Frozen copies of trained networks inside a module, which code of the user writes during ``fit``.

    A frozen module is a copy if a trained one has parameters of the same names and shapes. It follows the nearest of
    them once its values have changed. A copy that nothing writes, such as a teacher, follows nothing.

    Args:
        module: the model.
        written: names of copies that were written before, from a checkpoint.

    >>> module = nn.ModuleDict({"net": nn.Linear(3, 2), "target": nn.Linear(3, 2).requires_grad_(False)})
    >>> networks = FollowingNetworks(module)
    >>> networks.followed()
    {}
    >>> _ = module["target"].weight.mul_(0.9)
    >>> networks.followed()
    {'target': 'net'}
    """

    def __init__(self, module: nn.Module, written: Iterable[str] = ()) -> None:
        shapes = {name: _shapes(part) for name, part in module.named_modules() if name}
        frozen = {name for name in shapes if _is_frozen(module.get_submodule(name))}
        self._module = module
        self._networks: dict[str, list[str]] = {}  # copy -> the trained networks of its shapes
        for name in frozen.intersection(name for name, own in shapes.items() if own):
            same = [other for other in shapes if other not in frozen and shapes[other] == shapes[name]]
            if same:
                self._networks[name] = same
        self._networks = {name: same for name, same in self._networks.items() if not _inside(name, self._networks)}
        self._noted = {copy: _smallest(module.get_submodule(copy)).clone() for copy in self._networks}
        self._written = {name for name in written if name in self._networks}

    @property
    def written(self) -> list[str]:
        """Names of the copies that have been written, for a checkpoint."""
        for copy, noted in self._noted.items():
            if not torch.equal(_smallest(self._module.get_submodule(copy)), noted):
                self._written.add(copy)
        return sorted(self._written)

    def followed(self) -> dict[str, str]:
        """Copy -> the network that it follows."""
        frozen = [copy for copy in self.written if _is_frozen(self._module.get_submodule(copy))]
        return {copy: min(self._networks[copy], key=lambda network: self._distance(copy, network)) for copy in frozen}

    def left_behind(self) -> dict[str, str]:
        """Copy -> network that has other shapes now, of the copies that nothing has written before."""
        left = self._networks.keys() - set(self.written)
        part = self._module.get_submodule
        changed = {copy: [n for n in self._networks[copy] if _shapes(part(n)) != _shapes(part(copy))] for copy in left}
        return {copy: networks[0] for copy, networks in sorted(changed.items()) if networks}

    def _distance(self, copy: str, network: str) -> float:
        pairs = zip(*(self._module.get_submodule(name).parameters() for name in (copy, network)), strict=True)
        return sum(float((one.detach() - other.detach()).square().sum()) for one, other in pairs)


def follower_of(name: str, copy: str, network: str) -> str | None:
    """Name in ``copy`` of a layer or tensor of ``network``; None if ``name`` is not inside the network.

    >>> follower_of("net.0.weight", "target", "net"), follower_of("head.weight", "target", "net")
    ('target.0.weight', None)
    """
    inside = name == network or name.startswith(f"{network}.")
    return copy + name.removeprefix(network) if inside else None


def followers_text(followed: Mapping[str, str], left_behind: Mapping[str, str]) -> str:
    """Lines of a message; both: copy -> network."""
    changed = [f"\n  {copy!r} follows {network!r} and has changed with it" for copy, network in followed.items()]
    kept = [
        f"\n  {copy!r} keeps its shapes: it is frozen, and no code has written it from {network!r} before"
        for copy, network in left_behind.items()
    ]
    return "".join([*changed, *kept])


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in module.named_parameters()}


def _is_frozen(module: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in module.parameters())


def _inside(name: str, others: Collection[str]) -> bool:
    return any(name.startswith(f"{other}.") for other in others)


def _smallest(module: nn.Module) -> Tensor:
    """The smallest weight that is no vector, if there is one: a bias may stay zero although the copy is written."""
    return min(module.parameters(), key=lambda parameter: (parameter.ndim < 2, parameter.numel())).detach()
