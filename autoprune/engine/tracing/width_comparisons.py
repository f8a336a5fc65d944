"""Whether a model's code compares numbers while it runs: two widths perhaps, that a cut may make equal by chance."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import nn

_CONSTANTS = ("LOAD_CONST", "LOAD_SMALL_INT")
_TORCH = torch.__name__

#: How many calls deep functions are read, counted from `forward`.
_DEPTH = 3


def compares_numbers(model: nn.Module) -> bool:
    """Whether code that `forward` reaches, outside of torch, compares two things of which none is written in it.

    `if x.shape[1] == y.shape[1]` does, `if self.stride == 1` does not. It says only that widths may be compared: the
    probe then makes one more cut, in which all widths are equal.
    """
    return any(_class_compares(kind) for kind in {type(module) for module in model.modules()})


@cache
def _class_compares(kind: type[nn.Module]) -> bool:
    if kind.__module__.partition(".")[0] == _TORCH:
        return False
    return any(map(_compares, _reached(kind, _function_of(kind, "forward"), _DEPTH, set())))


def _reached(kind: type, function: Any, depth: int, seen: set[FunctionType]) -> Iterator[CodeType]:
    """The code of a function, of those inside it, and of those that it names: methods, and functions by its side."""
    if not isinstance(function, FunctionType) or function in seen or function.__module__.partition(".")[0] == _TORCH:
        return
    seen.add(function)
    for code in _with_inner(function.__code__):
        yield code
        for name in code.co_names if depth else ():
            yield from _reached(kind, _function_of(kind, name), depth - 1, seen)
            yield from _reached(kind, _by_its_side(function, name), depth - 1, seen)


def _function_of(kind: type, name: str) -> Any:
    """What a class has under a name, without what wraps it: static methods, properties, decorators that say so."""
    found = inspect.getattr_static(kind, name, None)
    return _unwrapped(found.fget if isinstance(found, property) else getattr(found, "__func__", found))


def _by_its_side(function: FunctionType, name: str) -> Any:
    """The function that a function finds under a name in its module; what it finds in other modules is not read."""
    return _unwrapped(function.__globals__.get(name))


def _unwrapped(found: Any) -> Any:
    return inspect.unwrap(found) if isinstance(found, Callable) and not isinstance(found, type) else None  # type: ignore[arg-type]


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_inner(constant)


def _compares(code: CodeType) -> bool:
    before = ""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "COMPARE_OP" and before not in _CONSTANTS:
            return True
        before = instruction.opname
    return False
