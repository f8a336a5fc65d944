"""What the user names in a space file: functions by `module:function`, and the data folder."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoprune.errors import InputError


def data_folder() -> Path:
    """$AUTOPRUNE_DATA, by default ~/.cache/autoprune."""
    return Path(os.environ.get("AUTOPRUNE_DATA") or "~/.cache/autoprune").expanduser()


def load_function(reference: str, where: str) -> Callable[..., Any]:
    """The function that `module:function` names; see `load_object`.

    Raises:
        InputError: as `load_object`, or it is no function.
    """
    function: Callable[..., Any] = load_object(reference, where)
    if not callable(function):
        raise InputError(f"{reference!r} is not a function", where=where)
    return function


def load_object(reference: str, where: str) -> Any:
    """What `module:name` names; the current folder counts as a place for modules.

    Raises:
        InputError: no such module or name, or the module fails when it is imported.
    """
    module, _, name = reference.partition(":")
    if not module or not name:
        raise InputError(f"{reference!r} names no function", where=where, allowed="module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # importing a user's module may raise anything
        raise InputError(f"{reference!r} cannot be imported: {error}", where=where) from error
