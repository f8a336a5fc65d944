"""A forward pass recorded operation by operation, so that a part of it can be run again with other weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

TensorsByName = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class _Operation:
    """One recorded operation; its arguments hold `_MadeTensor` and `_NamedTensor` in place of tensors."""

    run: Callable[..., Any]
    args: Any
    made: tuple[int, ...]


@dataclass(frozen=True)
class _MadeTensor:
    """The tensor of this number, made by an earlier operation."""

    number: int


@dataclass(frozen=True)
class _NamedTensor:
    """A parameter or buffer."""

    name: str


@dataclass(frozen=True, eq=False)
class Between:
    """What happens between two tensors of a forward pass: the output of a layer and the input of its readers.

    Fields: the operations in order; the numbers of that output (`start`) and that input (`end`).
    """

    operations: tuple[_Operation, ...]
    start: int
    end: int

    def __call__(self, output: Tensor, tensors: TensorsByName) -> Tensor:
        """The readers' input when the layer's output is `output`, of the shape recorded, and these are the weights."""
        made = {self.start: output}

        def fill(values: Any) -> Any:
            values = tree_map_only(_MadeTensor, lambda m: made[m.number], values)
            return tree_map_only(_NamedTensor, lambda n: tensors[n.name], values)

        for operation in self.operations:
            args, kwargs = fill(operation.args)
            out = [t for t in tree_flatten(operation.run(*args, **kwargs))[0] if isinstance(t, Tensor)]
            made.update(zip(operation.made, out, strict=True))
        return made[self.end]


class Recorder(TorchDispatchMode):
    """Notes every operation of a forward pass, with numbers in place of the tensors that it makes.

    A tensor that is changed in place gets a new number. Tensors are not kept alive.

    Args:
        names: of parameters and buffers, by the address of their data.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self.names, self.operations, self.count = names, list[_Operation](), 0
        self.numbers = WeakTensorKeyDictionary()

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor as it is now."""
        if tensor not in self.numbers:
            self._give_number(tensor)
        found: int = self.numbers[tensor]
        return found

    def _give_number(self, tensor: Tensor) -> int:
        self.numbers[tensor] = self.count
        self.count += 1
        return self.count - 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        known = tree_map_only(Tensor, self._describe_tensor, (args, kwargs or {}))
        out = func(*args, **(kwargs or {}))
        made = tuple(self._give_number(t) for t in tree_flatten(out)[0] if isinstance(t, Tensor))
        self.operations.append(_Operation(func, known, made))
        return out

    def _describe_tensor(self, tensor: Tensor) -> _MadeTensor | _NamedTensor:
        if tensor not in self.numbers and tensor.data_ptr() in self.names:
            return _NamedTensor(self.names[tensor.data_ptr()])
        return _MadeTensor(self.number(tensor))

    def between(self, start: int, end: int) -> Between | None:
        """What makes `end` of `start`; None if anything else that depends on the model's inputs goes into it."""
        wanted, operations = {end}, []
        for operation in reversed(self.operations):
            if start not in operation.made and wanted & set(operation.made):
                operations.append(operation)
                wanted -= set(operation.made)
                wanted |= {item.number for item in tree_flatten(operation.args)[0] if isinstance(item, _MadeTensor)}
        return Between(tuple(reversed(operations)), start, end) if wanted == {start} else None
