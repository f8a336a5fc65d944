"""What a model returns: the tensors in it, wherever they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.errors import ModelError


def output_tensors(output: object) -> list[Tensor]:
    """The tensors of a model's output: itself, or in lists, dictionaries, dataclasses and other objects.

    Raises:
        ModelError: there are none, so that nobody knows which channels somebody reads.
    """
    found = list(_tensors_in(output, set()))
    if not found:
        raise ModelError(
            f"no tensor found in what forward returns, {type(output).__name__}",
            where="output",
            allowed="tensors, in lists, dictionaries, dataclasses or attributes of objects",
        )
    return found


def _tensors_in(value: object, seen: set[int]) -> Iterator[Tensor]:
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            yield leaf
        elif id(leaf) not in seen:
            seen.add(id(leaf))
            for inner in _held_by(leaf):
                yield from _tensors_in(inner, seen)


def _held_by(leaf: Any) -> Iterator[object]:
    """What an object holds that no tree of torch's knows; modules hold their weights, which are no output."""
    if isinstance(leaf, (nn.Module, type, str, bytes)):
        return
    if isinstance(leaf, Mapping):
        yield from leaf.values()
    elif isinstance(leaf, (list, tuple, AbstractSet)):
        yield from leaf
    yield from getattr(leaf, "__dict__", {}).values()
    for kind in type(leaf).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            yield getattr(leaf, name, None)
