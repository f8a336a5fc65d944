"""MkDocs' hook: the site has the files that links lead to from the front page on, where the repository has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[2]
FRONT = "README.md"

#: What no page links to: how the site looks.
UNLINKED = ("docs/site.css",)

_LINK = re.compile(r"\]\(([^)\s#]+)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def reached(root: Path) -> list[str]:
    """The files that the front page links to, and those that these link to, by their paths in the repository."""
    seen, waiting = set(), [FRONT, *(page for page in UNLINKED if (root / page).is_file())]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        waiting += [target for target in _targets(root, page) if target not in seen]
    return sorted(seen)


def _targets(root: Path, page: str) -> Iterator[str]:
    """The files of the repository that a page links to."""
    if not page.endswith(".md"):
        return
    for target in _LINK.findall(_FENCED.sub("", (root / page).read_text(encoding="utf-8"))):
        file = (root / page).parent.joinpath(target).resolve()
        if "://" not in target and file.is_file():
            yield str(file.relative_to(root))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """In place of the files of one folder, those that can be reached; the theme's own stay."""
    from mkdocs.structure.files import File

    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    for path in reached(ROOT):
        files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
    return files
