"""Markdown pages as their readers meet them: the code that they show, their links, the places that links lead to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"^```(?:python|yaml)\n# (\S+\.\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,4} (.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Link(NamedTuple):
    """Where a link leads: a file, and a place in it, empty for its top."""

    file: Path
    anchor: str


def pages() -> list[str]:
    """Every page of the repository, by its path."""
    places = ("*.md", "docs/*.md", "cluster/*.md", "analysis/**/*.md")
    return sorted(str(file.relative_to(ROOT)) for place in places for file in ROOT.glob(place))


def code_in(page: Path, language: str) -> list[str]:
    """The blocks of a language, in their order."""
    return [code for name, code in _FENCED.findall(page.read_text(encoding="utf-8")) if name == language]


def languages_in(page: Path) -> set[str]:
    """The languages of a page's blocks."""
    return {name for name, _ in _FENCED.findall(page.read_text(encoding="utf-8"))}


def files_of(page: Path) -> dict[str, dict[str, str]]:
    """Heading -> name of a file -> what a block puts into it; a block's first line is a comment with the name."""
    sections = re.split(r"^#{1,2} (?!\S+\.\w+$)", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = ((text.partition("\n")[0], text) for text in sections if text)
    return {heading: dict(_NAMED.findall(text)) for heading, text in named}


def lines_of(code: str) -> int:
    """Lines that say something."""
    return sum(bool(line.strip()) for line in code.splitlines())


def prose_of(page: Path) -> str:
    """A page without its blocks."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def links_of(page: Path) -> Iterator[Link]:
    """Where the links and pictures of a page lead within the repository."""
    for target in _LINK.findall(prose_of(page)):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            yield Link((page.parent / file).resolve() if file else page.resolve(), anchor)


def anchors_of(page: Path) -> list[str]:
    """The places of a page that a link can name: its headings, in lower case, with hyphens for blanks."""
    headings = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in _HEADING.findall(prose_of(page)))
    return [re.sub(r"[\s-]+", "-", heading) for heading in headings]
