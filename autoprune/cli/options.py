"""Options that several commands have, what their values may be, and the parser that refuses other ones."""

from __future__ import annotations

import argparse
import difflib
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from autoprune.errors import InputError, brief_repr
from autoprune.files import is_url
from autoprune.recipe import AUTO

#: Values of an image, a gibibyte of float32: what memory has room for while a network runs on it.
MOST_VALUES = 2**28

#: Columns of the help.
WIDTH = 79


class CommandParser(argparse.ArgumentParser):
    """Help that fits 80 columns, wrong options as `InputError`."""

    def __init__(self, prog: str, description: str = "", examples: Sequence[str] = (), **rest: Any) -> None:
        lines = "\n".join(f"  {line}" for line in examples)
        rest.setdefault("formatter_class", _HelpFormatter)
        super().__init__(
            prog,
            description=textwrap.fill(" ".join(description.split()), WIDTH),
            epilog=f"examples:\n{lines}" if examples else None,
            allow_abbrev=False,  # a script that abbreviates breaks when the next option comes
            **rest,
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As ever, but of options that it does not know it says what they might be; a command alone knows its own."""
        known, rest = super().parse_known_args(args, namespace)
        for option in (word.partition("=")[0] for word in rest if word.startswith("--")):
            near = difflib.get_close_matches(
                option[2:], [name.lstrip("-") for name in self._option_string_actions], n=1
            )
            self.error(f"unknown option {brief_repr(option)}" + (f", did you mean --{near[0]}?" if near else ""))
        return known, rest

    def error(self, message: str) -> NoReturn:
        """Every wrong option ends here."""
        raise InputError(f"{message} (see: {self.prog} --help)")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=WIDTH, max_help_position=28)


class PrintVersion(argparse.Action):
    """`--version`, read from the installed package only when somebody asks."""

    def __init__(self, option_strings: Sequence[str], dest: str, **rest: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **rest)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print it and end."""
        from importlib.metadata import version

        print(f"autoprune {version('autoprune')}")
        parser.exit()


def add_command(commands: Any, place: str, summary: str, description: str, *examples: str) -> argparse.ArgumentParser:
    """A subcommand; `place` is where it is done, `studies.search`."""
    home, name = place.split(".")
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description, examples=examples, prog=f"autoprune {name}"
    )
    parser.set_defaults(home=home)
    return parser


def add_study(parser: argparse.ArgumentParser) -> None:
    """The study folder that a command reads."""
    text = "a study folder, or s3://bucket/path, written by autoprune search"
    parser.add_argument("folder", type=study_place, metavar="DIR", help=text)


def study_place(text: str) -> Path | str:
    """A folder, or a URL of object storage as it is."""
    return text if is_url(text) else Path(text)


@contextmanager
def study_here(args: argparse.Namespace) -> Iterator[None]:
    """Within it a study that the command names by a URL has a folder on this machine, which `args` names instead."""
    name = "out" if args.command == "search" else "folder"
    place = getattr(args, name, None)
    if not is_url(place):
        yield
        return
    from autoprune.study.mirror import study_at  # reads studies, which the help does without

    writes = args.command in {"search", "resume", "finish", "report"}
    with study_at(place, new=args.command == "search", writes=writes, follow=getattr(args, "watch", False)) as path:
        setattr(args, name, path)
        yield


def add_budget(parser: argparse.ArgumentParser) -> None:
    """What ends a search, and where it runs."""
    parser.add_argument("--trials", type=positive(int), metavar="N", help="end after N trials (default: the space's)")
    parser.add_argument(
        "--minutes", type=positive(float), metavar="M", help="end M minutes from now (default: the space's)"
    )
    parser.add_argument(
        "--gpu-hours", type=positive(float), metavar="H", help="end when all trials together have used H GPU-hours"
    )
    parser.add_argument(
        "--images", type=positive(int), metavar="N", help="end when all trials together have trained on N images"
    )
    parser.add_argument(
        "--until",
        type=search_end,
        metavar="END",
        help="end as well when the front has stopped to grow (hypervolume), or when the cheapest model within a point "
        "of the dense one gets no cheaper (within=1); see budget.patience",
    )
    add_place(parser)


def add_place(parser: argparse.ArgumentParser) -> None:
    """Where trials run, and who hears of them."""
    parser.add_argument("--address", metavar="A", help="a running Ray cluster, or auto (default: this machine alone)")
    parser.add_argument("--in-process", action="store_true", help="one trial after the other, without Ray")
    parser.add_argument(
        "--tracker",
        dest="trackers",
        action="append",
        default=[],
        metavar="NAME",
        help="tell tensorboard, mlflow or wandb of every trial, besides the space's trackers; repeatable",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """What a model by name is built for."""
    parser.add_argument(
        "--input",
        type=image_shape,
        default=(3, 224, 224),
        metavar="CxHxW",
        help="shape of one image (default: 3x224x224)",
    )
    parser.add_argument(
        "--classes", type=positive(int), metavar="N", help="outputs of a model by name (default: 1000, the library's)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Output for programs."""
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def width_step(text: str) -> int | str:
    """A whole number above 0, or `auto`."""
    return text if text == AUTO else positive(int)(text)


def image_shape(text: str) -> tuple[int, ...]:
    """`3x32x32`: channels, height, width of one image."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape; allowed: CxHxW, for instance 3x224x224")
    if sum(map(len, parts)) > len(str(MOST_VALUES)) + len(parts) or math.prod(map(int, parts)) > MOST_VALUES:
        raise argparse.ArgumentTypeError(
            f"an image of {text[:40]} is too large; allowed: at most {MOST_VALUES:,} values"
        )
    return tuple(int(part) for part in parts)


def cost_ratio(text: str) -> float:
    """A number in (0, 1]."""
    value = number_within(0, 1)(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 is out of range; allowed: (0, 1]")
    return value


def latency_limit(text: str) -> tuple[str, float]:
    """The name of the cost and its limit: milliseconds or, without a unit, the ratio to the dense model."""
    if text.endswith("ms"):
        return "latency_ms", positive(float)(text.removesuffix("ms"))
    return "latency", positive(float)(text)


def search_end(text: str) -> str | dict[str, float]:
    """`hypervolume`, or `within=1`: see `study.config.Budget.until`."""
    name, _, points = text.partition("=")
    if name == "within" and points:
        return {"within": number_within(0, 10**6)(points)}
    if text != "hypervolume":
        raise argparse.ArgumentTypeError(f"unknown end {text[:40]!r}; allowed: hypervolume, within=POINTS")
    return text


def number_within(low: float, high: float) -> Callable[[str], float]:
    """Reads a number in [low, high]."""

    def read(text: str) -> float:
        value = _parse_number(float, text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is out of range; allowed: [{low:g}, {high:g}]")
        return value

    return read


def port(text: str) -> int:
    """Reads the number of a port; 0 = any that is free."""
    value = int(_parse_number(int, text))
    if not 0 <= value <= 65_535:
        raise argparse.ArgumentTypeError(f"{text} is out of range; allowed: [0, 65535]")
    return value


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """Reads a finite number above 0, of the kind `int` or `float`."""

    def read(text: str) -> float:
        value = _parse_number(kind, text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is out of range; allowed: above 0")
        return value

    return read


def _parse_number(kind: Callable[[str], float], text: str) -> float:
    try:
        return kind(text)
    except ValueError:
        allowed = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; allowed: {allowed}") from None
