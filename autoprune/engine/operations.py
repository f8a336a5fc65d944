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
