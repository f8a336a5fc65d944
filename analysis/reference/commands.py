"""Every command: what it does, its arguments, examples, as its own `--help` says it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from autoprune.analysis.reference.docstrings import cell, markdown
from autoprune.cli.parser import build_parser


def text() -> str:
    """A section for each command, in Markdown."""
    return "\n".join(line for name, parser in parsers().items() for line in _section(name, parser))


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Command -> what reads its arguments."""
    actions = build_parser()._actions
    return dict(next(action for action in actions if isinstance(action, argparse._SubParsersAction)).choices)


def _section(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from (f"## `autoprune {name}`", "", markdown(" ".join((parser.description or "").split())), "")
    yield from ("```sh", *_examples(parser), "```", "")
    formatter = parser._get_formatter()
    rows = [
        f"| {_spelt(action)} | {cell(' '.join(formatter._expand_help(action).split()))} |"
        for action in parser._actions
        if action.help is not None and not isinstance(action, argparse._HelpAction)
    ]
    if rows:
        yield from ("| argument | what |", "|---|---|", *rows, "")


def _examples(parser: argparse.ArgumentParser) -> list[str]:
    """The command lines below `examples:`, without their indentation."""
    lines = (parser.epilog or "").partition("examples:\n")[2].splitlines()
    return [line.removeprefix("  ") for line in lines if line.strip()]


def _spelt(action: argparse.Action) -> str:
    """An argument as it is written: `DIR`, `--minutes M`."""
    value = action.metavar or ""
    names = [f"{name} {value}".rstrip() for name in action.option_strings] or [str(value)]
    return ", ".join(f"`{name}`" for name in names)
