"""What goes wrong, said in one line: what happened, where, and what is allowed.

`InputError` and its children are the user's to mend and end the command line with exit code 2; every other
`AutopruneError` ends it with exit code 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AutopruneError(Exception):
    """Base of every error this package raises on purpose.

    Args:
        what: what is wrong, with the offending value.
        where: file, path inside the file, layer or option that holds it.
        allowed: what would have been accepted.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", allowed: str = "") -> None:
        self.what, self.where, self.allowed = what, where, allowed
        super().__init__(what, where, allowed)

    def __reduce__(self) -> tuple[object, ...]:
        # Ray pickles exceptions by calling type(self)(*args); keyword-only fields need their own way back.
        return _rebuild_error, (type(self), self.what, self.where, self.allowed)

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        allowed = f"; allowed: {self.allowed}" if self.allowed else ""
        return " ".join(f"{where}{self.what}{allowed}".split())


class InputError(AutopruneError):
    """Something the user handed in is wrong: a space, an option, a file, a folder."""

    exit_code = 2


class ModelError(InputError):
    """The model cannot be built, loaded, traced or run."""


class DataError(InputError):
    """The data are missing or have another shape than the task needs."""


class TargetError(InputError):
    """The target cannot be met; the message names the smallest reachable ratio and the groups that hold it up."""


class ArtifactError(InputError):
    """A saved model does not match its description or the factory's model."""


class StudyError(AutopruneError):
    """The search as a whole failed: nothing could be pruned, or no trial completed."""


class SearchInterrupted(AutopruneError):  # noqa: N818 - nothing went wrong
    """The user ended the search; everything that had finished is kept."""


class ExportError(AutopruneError):
    """An exported file does not compute what the model computes."""


def _rebuild_error(cls: type[AutopruneError], what: str, where: str, allowed: str) -> AutopruneError:
    return cls(what, where=where, allowed=allowed)


def one_of(names: Iterable[str]) -> str:
    """The names as a sorted, readable list."""
    return ", ".join(sorted(names))


def check_name(name: object, allowed: Iterable[str], *, kind: str, where: str = "") -> str:
    """Return `name` if it is allowed; else raise `InputError` with the nearest name and the whole list."""
    names = allowed if isinstance(allowed, (tuple, list, dict)) else list(allowed)
    if isinstance(name, str) and name in names:
        return name
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise InputError(f"unknown {kind} {name!r}{hint}", where=where, allowed=one_of(names) or "none")


def first_line(error: BaseException, length: int = 120) -> str:
    """What a foreign error says in its first line, cut to `length`; its type where it says nothing."""
    return str(error).strip().split("\n")[0][:length] or type(error).__name__
