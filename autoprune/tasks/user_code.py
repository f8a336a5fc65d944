"""What the user names in a space file: functions by `module:function`, and the data folder."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autoprune.engine.tracing.code_places import place_in_code
from autoprune.errors import AutopruneError, DataError, InputError, ModelError, first_line


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


def find_modules_here() -> None:
    """Let the current folder count as a place for modules from now on."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def load_object(reference: str, where: str) -> Any:
    """What `module:name` names; the current folder counts as a place for modules.

    Raises:
        InputError: no such module or name, or the module fails when it is imported.
    """
    module, _, name = reference.partition(":")
    if not module or not name:
        raise InputError(f"{reference!r} names no function", where=where, allowed="module:function")
    find_modules_here()
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):  # another one, which the user's needs
            raise InputError(f"{reference!r} cannot be imported: {error}", where=where) from error
        file = module.partition(".")[0]
        allowed = f"run it in the folder that holds {file}.py, or with that folder in PYTHONPATH"
        what = f"{reference!r} cannot be imported: there is no module {error.name!r} here"
        raise InputError(what, where=where, allowed=allowed) from error
    except (Exception, SystemExit) as error:  # importing a user's module may raise anything, and a script ends itself
        reason = f"{type(error).__name__}: {first_line(error)}"
        allowed = f"a module that is installed or lies in {Path.cwd()}, with that name in it"
        raise InputError(f"{reference!r} cannot be imported: {reason}", where=where, allowed=allowed) from error


def call(
    reference: str,
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    where: str,
    kind: type[ModelError | DataError],
) -> Any:
    """What a function of the user's returns.

    Args:
        reference: `module:function`, for errors.
        kind: of the error that is raised if the function fails.

    Raises:
        ModelError, DataError: the function fails or ends the program, or does not take the arguments.
    """
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        what = f"{reference} cannot be called with {', '.join(arguments) or 'no arguments'}: {error}"
        allowed = f"`arguments` for {_signature_text(function)}"
        raise kind(what, where=where, allowed=allowed) from error
    except ValueError:  # of some functions that are written in C nobody knows the arguments
        pass
    try:
        return function(**arguments)
    except AutopruneError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        reason = f"{type(error).__name__}: {first_line(error)}"
        place = place_in_code(error)
        raise kind(f"{reference} failed: {reason}{f' ({place})' if place else ''}", where=where) from error


def _signature_text(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__name__', 'it')}{inspect.signature(function)}"
