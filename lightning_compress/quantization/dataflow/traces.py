"""Traces: the operations of one real forward pass, with the values that each of them reads.

A torch function mode sees every operation, inside modules and between them, and hooks see every call of a module.
Values are numbered: a tensor that is changed in place becomes a new value, a cast to another float type does not.
No code is rewritten, and ``forward`` may contain any Python.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from lightning_compress.adapters import AdditivePath, additive_paths
from lightning_compress.adapters.paths import replaced_layers
from lightning_compress.adapters.views import plain_view
from lightning_compress.example_inputs import tensors_in

__all__ = ["Call", "Operation", "Trace"]

_CASTS = {"to", "type", "type_as", "float", "double", "half", "bfloat16"}


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        name: of the function, ``"conv2d"``.
        inputs: the values that it reads, in the order of its arguments; parameters are values too.
        output: the value that it returns.
        module: name of the innermost module that computes it.
    """

    name: str
    inputs: tuple[int, ...]
    output: int
    module: str


@dataclass(frozen=True)
class Call:
    """One call of a module.

    Attributes:
        module: its name.
        input: the value of its first argument, -1 if that is no tensor.
        output: the value that it returns, -1 if that is no tensor.
        outermost: number of the outermost call that it is part of.
    """

    module: str
    input: int
    output: int
    outermost: int


@dataclass
class _Open:
    module: str
    input: int
    outermost: int


class Trace(TorchFunctionMode):
    """Watches ``module`` while it is entered. It sees only operations that gradients flow through.

    A layer with adapters is one layer: its operations are those of the layer of the weight, as after merging.

    Args:
        module: the model.
        note: computes a note on every activation when it appears, before it may be changed in place.

    Attributes:
        module: the same; a view of it without adapters, if it has some.
        operations: in the order of their execution.
        calls: in the order of their ends: an inner call comes before the one around it.
        weights: module -> values that its ``weight`` had. FSDP2 lends a module another tensor while it runs.
        biases: module -> values that its ``bias`` had.
        escaped: values with a reader that is none of the ``operations``: values in a container that is returned, and
            inputs of a function that returns several tensors.
        notes: value -> its note.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> with Trace(net) as trace:
    ...     _ = net(torch.zeros(1, 2))
    >>> [operation.name for operation in trace.operations], [call.module for call in trace.calls]
    (['linear', 'relu'], ['0', '1', ''])
    """

    def __init__(self, module: nn.Module, note: Callable[[Tensor], Any] | None = None) -> None:
        super().__init__()
        self.module = plain_view(module)
        self.operations: list[Operation] = []
        self.calls: list[Call] = []
        self.weights: dict[str, set[int]] = defaultdict(set)
        self.biases: dict[str, set[int]] = defaultdict(set)
        self.escaped: set[int] = set()
        self.notes: dict[int, Any] = {}
        self._watched = module
        self._paths = {id(path.layer): path for path in additive_paths(module)}
        hidden = {id(part) for path in self._paths.values() for part in path.layer.modules() if part is not path.layer}
        hidden |= {id(layer) for layer, _ in replaced_layers(module).values()} - self._paths.keys()  # the copy computes
        self._names = {id(part): name for name, part in module.named_modules() if id(part) not in hidden}
        self._inside: nn.Module | None = None  # a layer with adapters, which runs now
        self._note = note
        self._values: dict[int, int] = {}  # id of a tensor -> its value now
        self._kept: list[Tensor] = []  # kept alive, so that no id is used twice
        self._count = 0
        self._open: list[_Open] = []
        self._handles: list[Any] = []

    def __enter__(self) -> Trace:
        # Global hooks, not hooks of these modules: a copy made meanwhile (a teacher, an average) inherits none.
        self._handles.append(register_module_forward_pre_hook(self._begin))
        self._handles.append(register_module_forward_hook(self._end, always_call=True))
        self._see_parameters(self._watched)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self._kept.clear()
        while self._handles:
            self._handles.pop().remove()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled() or self._inside is not None:
            return func(*args, **kwargs)
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        inputs = tuple(self.value(leaf) for leaf in leaves)
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "").strip("_")
        if isinstance(result, Tensor) and inputs:
            if name in _CASTS and result.is_floating_point() and leaves[0].is_floating_point():
                self._hold(result, inputs[0])
            else:
                module = self._open[-1].module if self._open else ""
                self.operations.append(Operation(name, inputs, self._new(result), module))
        elif any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):  # several tensors, as from `chunk`
            self.escaped.update(inputs)
        return result

    def value(self, tensor: Tensor) -> int:
        """The number of the value that ``tensor`` holds now."""
        number = self._values.get(id(tensor))
        if number is not None:
            return number
        same = self._same_memory(tensor)
        return self._new(tensor) if same is None else self._hold(tensor, self._values[id(same)])

    def _same_memory(self, tensor: Tensor) -> Tensor | None:
        """A known tensor of which ``tensor`` is another view: FSDP2 makes views of the inputs of a module."""
        with torch.no_grad():  # these operations are not traced
            if not tensor._is_view():
                return None
            base, gradient = tensor._base, tensor.requires_grad
            kin = (other for other in reversed(self._kept) if other is base or other._base is base)
            return next((other for other in kin if other.requires_grad == gradient and tensor.is_set_to(other)), None)

    def _new(self, tensor: Tensor) -> int:
        self._count += 1
        self._hold(tensor, self._count)
        if self._note is not None and tensor.is_floating_point() and not isinstance(tensor, nn.Parameter):
            with torch.no_grad():  # these operations are not traced
                self.notes[self._count] = self._note(tensor)
        return self._count

    def _hold(self, tensor: Tensor, number: int) -> int:
        self._kept.append(tensor)
        self._values[id(tensor)] = number
        return number

    def _begin(self, module: nn.Module, args: Any) -> None:
        if id(module) not in self._names:
            return
        first = self.value(args[0]) if args and isinstance(args[0], Tensor) else -1
        self._count += 1
        self._open.append(_Open(self._names[id(module)], first, self._open[0].outermost if self._open else self._count))
        self._inside = module if id(module) in self._paths else None

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        if id(module) in self._names and self._open:
            self._see_parameters(module)  # these hooks run before the module's own, which take lent weights back
            if self._inside is module:
                self._inside = None
                self._merge(self._paths[id(module)], args, output)
            call = self._open.pop()
            result = self.value(output) if isinstance(output, Tensor) else -1
            self.calls.append(Call(call.module, call.input, result, call.outermost))
            if not self._open and result == -1:
                self.escaped.update(self.value(tensor) for tensor in tensors_in(output))

    def _merge(self, path: AdditivePath, args: Any, output: Any) -> None:
        """See the operations of the layer of a weight, which give the output of the layer with adapters."""
        if isinstance(output, Tensor) and args:
            number = self._hold(output, self.value(path.base(args[0])))
            if self._note is not None and number in self.notes:
                with torch.no_grad():
                    self.notes[number] = self._note(output)

    def _see_parameters(self, module: nn.Module) -> None:
        for part in module.modules():
            for key, values in (("weight", self.weights), ("bias", self.biases)):
                holder = self._paths[id(part)].base if id(part) in self._paths else part
                parameter = holder._parameters.get(key)
                if parameter is not None and id(part) in self._names:
                    values[self._names[id(part)]].add(self.value(parameter))
