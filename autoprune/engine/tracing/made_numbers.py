"""Numbers that a model's code puts into tensors of their own: `torch.tensor(width ** 0.5, device=x.device)`.

Tensors on the meta device do not hold them, so they are noted while the tensor is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

from autoprune.engine.labels.flow import Flow

_MAKERS = ((torch, "tensor"), (torch, "as_tensor"), (torch.Tensor, "new_tensor"))


@contextmanager
def made_numbers_noted(flow: Flow) -> Iterator[None]:
    """Within it the evidence gets every number that becomes a meta tensor, under the name of what makes the tensor."""
    before = [(owner, name, getattr(owner, name)) for owner, name in _MAKERS]
    for owner, name, make in before:
        setattr(owner, name, _noting(flow, name, make))
    try:
        yield
    finally:
        for owner, name, make in before:
            setattr(owner, name, make)


def _noting(flow: Flow, name: str, make: Any) -> Any:
    @wraps(make)
    def noted(*args: Any, **kwargs: Any) -> Any:
        made = make(*args, **kwargs)
        data = [value for value in (*args, kwargs.get("data")) if type(value) in (int, float)]
        if made.is_meta and data:
            flow.evidence.numbers[name, flow.state.calls[name]] = (data[0],)
            flow.state.calls[name] += 1
        return made

    return noted
