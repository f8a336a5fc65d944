"""cluster: launch files with their places filled in.

A launch file says in the comment at its top which values it takes, a line each: `#   nodes: 2: machines with GPUs` has
name, default and meaning. `REQUIRED` instead of a default is a value that only the user knows. Below that `@nodes@`
stands for the value.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from autoprune.cli.view import show
from autoprune.errors import InputError, check_name, one_of
from autoprune.files import write_atomically

LAUNCH_FILES = "autoprune.cluster"
_HEADING = "# Values:\n"
_DECLARATION = re.compile(r"#   (?P<name>[a-z_]+): (?P<default>.+?): (?P<meaning>.+)\n")
_PLACE = re.compile(r"@([a-z_]+)@")
_REQUIRED = "REQUIRED"
# What means the same in YAML between double quotes and in a shell, quoted or not; spaces only in values of many words.
_WORD = re.compile(r"[A-Za-z0-9_./~][A-Za-z0-9_./~:@%+=,-]*")
_WORDS = re.compile(f"{_WORD.pattern}(?: [A-Za-z0-9_./~:@%+=,-]+)*")
# Of anything that is counted a file needs one, but machines without GPUs run searches as well.
_LEAST = {"gpus": 0}


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value of a launch file. Its default says of what kind it is: a whole number, several words, or one.

    Fields:
        default: None = the user must say it.
        meaning: for the user, a phrase.
    """

    name: str
    default: str | None
    meaning: str

    def check(self, given: str, where: str) -> str:
        """Return `given` if the file still means what it says with it in its place; else raise `InputError`."""
        default = self.default or ""
        if default.isdecimal():
            least = _LEAST.get(self.name, 1)
            valid, allowed = _is_whole_number(given, least), f"a whole number from {least} on"
        elif " " in default:
            valid, allowed = bool(_WORDS.fullmatch(given)), "words of letters, digits and . / ~ _ : @ % + = , -"
        else:
            valid, allowed = bool(_WORD.fullmatch(given)), "letters, digits and . / ~ _ : @ % + = , -"
        if not valid:
            raise InputError(f"{given!r} is no value for {self.name}, {self.meaning}", where=where, allowed=allowed)
        return given


@dataclass(frozen=True, kw_only=True)
class LaunchFile:
    """A launch file as it is shipped, with places for its values."""

    name: str
    text: str

    @property
    def summary(self) -> str:
        """Its first line of comment."""
        first = next(line for line in self.text.splitlines() if line.startswith("# "))
        return first.removeprefix("# ")

    @property
    def values(self) -> dict[str, Value]:
        """Name -> what can be said; empty for a file that takes no values."""
        found = {}
        for line in self.text.partition(_HEADING)[2].splitlines(keepends=True):
            declared = _DECLARATION.fullmatch(line)
            if declared is None:
                break
            default = None if declared["default"] == _REQUIRED else declared["default"]
            found[declared["name"]] = Value(name=declared["name"], default=default, meaning=declared["meaning"])
        return found

    def fill(self, given: Mapping[str, str]) -> str:
        """The file with every value in its place; its comment says the values instead of the defaults.

        Raises:
            InputError: a value that this file does not have, cannot take, or misses.
        """
        where, values = f"cluster {self.name}", self.values
        for name in given:
            check_name(name, values, kind="value", where=where)
        missing = [value for name, value in values.items() if value.default is None and name not in given]
        if missing:
            wanted = " ".join(f"{value.name}=..." for value in missing)
            meanings = ", ".join(f"{value.name} ({value.meaning})" for value in missing)
            raise InputError(f"no value for {meanings}", where=where, allowed=f"--set {wanted}")
        chosen = {name: value.check(given.get(name, value.default), where) for name, value in values.items()}
        body = _PLACE.sub(lambda place: chosen[place[1]], self.text)
        for name, value in values.items():
            declaration = f"#   {name}: {value.default or _REQUIRED}: {value.meaning}\n"
            body = body.replace(declaration, f"#   {name}: {chosen[name]}: {value.meaning}\n", 1)
        return body


def launch_files() -> dict[str, LaunchFile]:
    """All launch files that come with autoprune, by name."""
    files = [Path(str(file)) for file in resources.files(LAUNCH_FILES).iterdir()]
    launchers = [file for file in files if file.suffix in {".yaml", ".sh", ".sbatch"} or file.name == "Dockerfile"]
    names = [(file.stem.lower(), file) for file in sorted(launchers)]
    return {name: LaunchFile(name=name, text=file.read_text(encoding="utf-8")) for name, file in sorted(names)}


def cluster(args: Namespace) -> None:
    """List the launch files, say what one takes, or hand it over filled in."""
    files = launch_files()
    if args.name is None:
        _list_files(args, files)
        return
    file = files[check_name(args.name, files, kind="launch file", where="cluster")]
    if args.values:
        if _fills_in(args):
            raise InputError("--values fills nothing in", where="cluster", allowed="--values alone")
        show([_value_row(value) for value in file.values.values()])
        return
    text = file.fill(_read_assignments(args.set))
    if args.out is not None:
        _write(args.out, text, overwrite=args.overwrite)
        print(f"written to {args.out}; the comment at its top says how to use it")
    elif args.overwrite:
        raise InputError("--overwrite without --out", where="cluster", allowed="--out FILE --overwrite")
    else:
        print(text, end="")


def _is_whole_number(text: str, least: int) -> bool:
    return bool(re.fullmatch("[0-9]{1,9}", text)) and int(text) >= least


def _list_files(args: Namespace, files: Mapping[str, LaunchFile]) -> None:
    if args.values or _fills_in(args):
        raise InputError("which file is meant?", where="cluster", allowed=f"one of {one_of(files)}, then options")
    show([{"name": file.name, "for": file.summary} for file in files.values()])


def _fills_in(args: Namespace) -> bool:
    return bool(args.set or args.overwrite or args.out is not None)


def _value_row(value: Value) -> dict[str, str]:
    return {"value": value.name, "default": value.default or "(must be given)", "meaning": value.meaning}


def _read_assignments(assignments: Iterable[str]) -> dict[str, str]:
    """`name=text`, each name once."""
    found: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or name in found:
            problem = f"{name} is given twice" if equals else f"{assignment!r} gives nothing a value"
            raise InputError(problem, where="--set", allowed="NAME=VALUE, each name once")
        found[name] = value
    return found


def _write(out: Path, text: str, *, overwrite: bool) -> None:
    """Write the file, one that can be run if it is a script."""
    if out.exists() and not overwrite:
        raise InputError("already exists", where=str(out), allowed="another name, or --overwrite")
    write_atomically(out, text)
    if text.startswith("#!"):
        out.chmod(out.stat().st_mode | 0o111)
