"""What goes wrong, said in one line: what happened, where, and what is allowed.

`InputError` and its children are the user's to mend and end the command line with exit code 2; every other
`AutopruneError` ends it with exit code 1.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

#: Most characters of an error on the command line, the name of the program included.
LINE = 300

#: Characters that are kept of what is allowed, and of where it is, before what is wrong is cut.
_KEPT = 90

_CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0e-\x1f\x7f]")


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
        return _joined(self.what, self.where, self.allowed)

    def line(self, length: int = LINE) -> str:
        """The same in at most `length` characters; where it is longer, `…` stands for what matters least.

        First the end of what is allowed, then the beginning of where it is (a path ends with what tells most), then the
        end of what is wrong.
        """
        what, where, allowed = (_on_one_line(text) for text in (self.what, self.where, self.allowed))
        allowed = _cut(allowed, max(_KEPT, len(allowed) - _excess(what, where, allowed, length)))
        where = _cut(where[::-1], max(_KEPT, len(where) - _excess(what, where, allowed, length)))[::-1]
        return _joined(_cut(what, len(what) - _excess(what, where, allowed, length)), where, allowed)


class InputError(AutopruneError):
    """Something the user handed in is wrong: a space, an option, a file, a folder."""

    exit_code = 2


class ModelError(InputError):
    """The model cannot be built, loaded, traced, run or pruned."""


class DataError(InputError):
    """The data are missing or have another shape than the task needs."""


class TargetError(InputError):
    """The target cannot be met; the message names the smallest reachable ratio and the groups that hold it up."""


class ArtifactError(InputError):
    """A saved model does not match its description or the factory's model."""


class StudyError(AutopruneError):
    """The search as a whole failed: no trial completed, or its folder cannot be used."""


class SearchInterrupted(AutopruneError):  # noqa: N818 - nothing went wrong
    """The user ended the search; everything that had finished is kept."""


class ExportError(AutopruneError):
    """An exported file does not compute what the model computes."""


def _rebuild_error(cls: type[AutopruneError], what: str, where: str, allowed: str) -> AutopruneError:
    return cls(what, where=where, allowed=allowed)


def _joined(what: str, where: str, allowed: str) -> str:
    place = f"{where}: " if where else ""
    rest = f"; allowed: {allowed}" if allowed else ""
    return _on_one_line(f"{place}{what}{rest}")


def _excess(what: str, where: str, allowed: str, length: int) -> int:
    return max(0, len(_joined(what, where, allowed)) - length)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _on_one_line(text: str) -> str:
    """Without line breaks, colours of a terminal and other characters that do not print."""
    return " ".join(_CONTROL.sub("", text).split())


def one_of(names: Iterable[str]) -> str:
    """The names as a sorted, readable list."""
    return ", ".join(sorted(names))


def check_name(name: object, allowed: Iterable[str], *, kind: str, where: str = "") -> str:
    """Return `name` if it is allowed; else raise `InputError` with the nearest name and the whole list."""
    names = allowed if isinstance(allowed, (tuple, list, dict)) else list(allowed)
    if isinstance(name, str) and name in names:
        return name
    near = difflib.get_close_matches(str(name)[:_KEPT], names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise InputError(f"unknown {kind} {brief_repr(name)}{hint}", where=where, allowed=one_of(names) or "none")


def brief_repr(value: object, length: int = 80) -> str:
    """`repr`, cut to `length`: what a user hands in may be as large as it likes, or hold itself."""
    return _cut(repr(value), length)


def first_line(error: BaseException, length: int = 120) -> str:
    """What a foreign error says in its first line, cut to `length`; its type where it says nothing."""
    first = _CONTROL.sub("", str(error)).strip().split("\n")[0]
    return _cut(first, length) or type(error).__name__
