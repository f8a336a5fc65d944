"""The name of a torch operation, as rules and masks know it."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def operation_name(func: Any) -> str:
    """`aten::relu_.default` -> `relu`; of other libraries with their namespace, `torchvision::roi_align`."""
    space, _, name = func._schema.name.partition("::")
    plain: str = name if name.endswith("__") else name.rstrip("_") if not name.startswith("_") else name
    return plain if space == "aten" else f"{space}::{plain}"


#: Which of them a linear layer calls depends on its input's batch size and memory layout, and its weight's gradient.
_PRODUCTS = frozenset({"mm", "bmm"})


def counted_as(name: str) -> str:
    """The name under which calls are counted where passes of other batch sizes have to find them again."""
    return "matrix product" if name in _PRODUCTS else name
