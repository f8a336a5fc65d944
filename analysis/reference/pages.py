"""The pages that hold generated parts, and how these are put into them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from autoprune.analysis.reference import commands, keys, methods
from autoprune.files import write_atomically

DOCS = Path(__file__).parents[2] / "docs"

#: Page -> the name of its generated part, and what writes that.
GENERATED: dict[str, tuple[str, Callable[[], str]]] = {
    "commands.md": ("commands", commands.text),
    "search-spaces.md": ("keys", keys.text),
    "methods.md": ("methods", methods.text),
}


def with_generated(page: str, name: str, generated: str) -> str:
    """A page with its part `name`, between two comments, replaced; the rest was written by hand."""
    begin, end = f"<!-- generated: {name} -->\n", "<!-- end -->\n"
    found = re.search(f"{re.escape(begin)}.*?{re.escape(end)}", page, re.DOTALL)
    if found is None:
        raise ValueError(f"no part {name!r} between {begin.strip()} and {end.strip()}")
    return f"{page[: found.start()]}{begin}\n{generated.rstrip()}\n\n{end}{page[found.end() :]}"


def renewed(file: Path) -> str:
    """What a page has to be by the classes of now."""
    name, write = GENERATED[file.name]
    return with_generated(file.read_text(encoding="utf-8"), name, write())


def main() -> None:
    """Renew every page in `docs/`."""
    for name in GENERATED:
        write_atomically(DOCS / name, renewed(DOCS / name))


if __name__ == "__main__":
    main()
