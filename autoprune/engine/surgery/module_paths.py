"""Which module's code is running: by its name, as traces and masks know the place of a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from torch import nn


@contextmanager
def paths_followed(modules: Mapping[str, nn.Module], note: Callable[[str], None]) -> Iterator[None]:
    """While open, `note` is told the name of the module whose forward runs, whenever that becomes another.

    Args:
        modules: by name; outside of all of them the name is that of the whole model, "".
    """
    stack: list[str] = []

    def enter(path: str, _module: nn.Module, _args: object) -> None:
        stack.append(path)
        note(path)

    def leave(_module: nn.Module, _args: object, _out: object) -> None:
        stack.pop()
        note(stack[-1] if stack else "")

    # `register_forward_hook` makes a handle for each, which takes longer than the forward pass of a module.
    key = object()
    for path, module in modules.items():
        module._forward_pre_hooks[key], module._forward_hooks[key] = partial(enter, path), leave  # type: ignore[index]
    try:
        yield
    finally:
        for module in modules.values():
            del module._forward_pre_hooks[key], module._forward_hooks[key]  # type: ignore[arg-type]
