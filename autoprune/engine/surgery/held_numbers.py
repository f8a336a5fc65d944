"""Numbers that a module holds beside its weights: attributes, and arguments of partial functions that are attributes.

ResNets that pad their shortcuts keep the width of a block in such a function: `partial(pad, planes=64)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))

#: What can hold whole numbers.
_HOLDERS = (int, list, tuple, partial)


def held_numbers(module: nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and the whole numbers they stand for, one or several; "attribute.argument" for those in a partial function.

    Arguments without a name go by their place: "attribute.0".
    """
    for name, value in vars(module).items():
        if name not in _OF_EVERY_MODULE and isinstance(value, _HOLDERS):
            for place, inner in _partial_arguments(value).items():
                yield from _as_numbers(f"{name}.{place}", inner)
            yield from _as_numbers(name, value)


def hold_numbers(module: nn.Module, name: str, numbers: Sequence[int]) -> None:
    """Give what `held_numbers` calls by this name other numbers; functions that others hold too stay as they are."""
    attribute, _, place = name.partition(".")
    held = getattr(module, attribute)
    if not place:
        setattr(module, attribute, _like(held, numbers))
        return
    arguments = {**_partial_arguments(held)}
    arguments[place] = _like(arguments[place], numbers)
    positional = [arguments.pop(str(i)) for i in range(len(held.args))]
    setattr(module, attribute, partial(held.func, *positional, **arguments))


def _partial_arguments(value: object) -> Mapping[str, Any]:
    if not isinstance(value, partial):
        return {}
    return {**{str(place): argument for place, argument in enumerate(value.args)}, **value.keywords}


def _as_numbers(name: str, value: object) -> Iterator[tuple[str, tuple[int, ...]]]:
    if type(value) is not int and not isinstance(value, (list, tuple)):
        return
    numbers = (value,) if type(value) is int else tuple(value)
    if all(type(number) is int for number in numbers):
        yield name, numbers


def _like(held: Any, numbers: Sequence[int]) -> Any:
    return type(held)(numbers) if isinstance(held, (list, tuple)) else numbers[0]
