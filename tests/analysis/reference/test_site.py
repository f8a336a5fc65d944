"""The site: what links lead to is in it, it builds without a warning, and its pages load nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import autoprune
from autoprune.analysis.reference.site import ROOT, reached


def test_the_site_has_what_links_lead_to(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("[a](docs/a.md#place) [b](https://elsewhere.org/b.md) [gone](docs/gone.md)\n")
    (tmp_path / "docs" / "a.md").write_text("![c](c.svg) [up](../README.md)\n```sh\n[d](d.md)\n```\n")
    for name in ("c.svg", "d.md", "site.css"):
        (tmp_path / "docs" / name).write_text("")

    assert reached(tmp_path) == ["README.md", "docs/a.md", "docs/c.svg", "docs/site.css"]


def test_every_public_name_is_in_the_api() -> None:
    written = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    names = {name: f"autoprune.{home}" for name, home in autoprune._HOME.items() if f"autoprune.{home}" not in written}

    assert {f"{home}.{autoprune._NAME_AT_HOME.get(name, name)}" for name, home in names.items()} - set(written) == set()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocstrings") is None, reason="needs the extra `docs`")
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    pages = {page: page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html")}
    loads = re.compile(r"<(?:script|link|img|iframe|source)[^>]*(?:src|href)=[\"']?(?:https?:)?//[^>]*>")

    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    assert len(pages) > 30
    assert [found for text in pages.values() for found in loads.findall(text)] == []
