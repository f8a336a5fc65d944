"""The pages: what links lead to is there, what they show is run, parsed or read, and the front page stays short."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import itertools
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import OUTCOMES, Capture
from pages import ROOT, anchors_of, code_in, files_of, languages_in, links_of, pages, prose_of
from told_progress import progress

from autoprune import methods
from autoprune.cli import parser
from autoprune.cli.view import trial_facts
from autoprune.study import space_file
from autoprune.tasks import zoo

PAGES = pages()
#: Those that are written for users, not by a benchmark.
FOR_USERS = [name for name in PAGES if not name.startswith("analysis/")]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: What the pages about clusters run beside autoprune: programs of others, and launch files under the names given there.
OF_CLUSTERS = {"aws", "docker", "kubectl", "ray", "sbatch", "./nodes.sh", "./onprem.sh"}
#: The languages of blocks that a test of this file checks.
CHECKED = {"python", "yaml", "sh", "toml", "json", "console"}


def commands() -> set[str]:
    """The subcommands."""
    actions = parser.build_parser()._actions
    return set(next(action for action in actions if isinstance(action, argparse._SubParsersAction)).choices)


def shell_lines(name: str) -> list[list[str]]:
    """The words of each command line in a page's shell blocks, up to a pipe or a file, without comments."""
    text = "\n".join(code_in(ROOT / name, "sh")).replace("\\\n", " ")
    words = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [list(itertools.takewhile(lambda word: word not in {"|", ">"}, line)) for line in words if line]


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    links = list(links_of(ROOT / name))

    assert [str(link.file) for link in links if not link.file.exists()] == []
    assert [link for link in links if link.anchor and link.anchor not in anchors_of(link.file)] == []


def test_every_page_can_be_reached_from_the_front_page() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        seen.add(page)
        waiting += [link.file for link in links_of(page) if link.file.suffix == ".md" and link.file not in seen]

    assert {str((ROOT / name).resolve()) for name in FOR_USERS} - {str(page) for page in seen} == set()


@pytest.mark.parametrize("name", FOR_USERS)
def test_no_page_names_a_place_of_one_machine(name: str) -> None:
    assert (
        re.findall(r"(?:^|[\s`(\"'])(?:/home|/root|/work|/Users)/\S*", (ROOT / name).read_text(encoding="utf-8")) == []
    )


@pytest.mark.parametrize("name", FOR_USERS)
def test_every_block_is_of_a_kind_that_is_checked(name: str) -> None:
    assert languages_in(ROOT / name) - CHECKED == set()


@pytest.mark.parametrize("name", FOR_USERS)
def test_command_lines_are_accepted(name: str) -> None:
    for words in shell_lines(name):
        if words[0] == "autoprune":
            parser.build_parser().parse_args(words[1:])
        elif words[0] == "make":
            assert all(re.search(f"^{re.escape(target)}:", MAKEFILE, re.MULTILINE) for target in words[1:]), words
        elif words[:2] == ["pip", "install"]:
            extras = re.fullmatch(r"\.(?:\[(\w+)\])?", words[2])
            assert extras is not None, words
            assert extras[1] is None or extras[1] in PROJECT["optional-dependencies"]
        elif words != [".ci/run"]:
            assert name == "cluster/README.md", words
            assert words[0] in OF_CLUSTERS


@pytest.mark.parametrize("name", FOR_USERS)
def test_commands_in_sentences_exist(name: str) -> None:
    text = prose_of(ROOT / name)

    assert set(re.findall(r"`autoprune ([a-z]+)\b", text)) - commands() == set()
    assert [t for t in re.findall(r"`make ([a-z-]+)", text) if f"\n{t}:" not in MAKEFILE] == []
    assert (
        set(re.findall(r"pip install '?(?:\.|autoprune)\[(\w+)\]", text)) - set(PROJECT["optional-dependencies"])
        == set()
    )


def test_the_pages_speak_of_every_command() -> None:
    named = {words[1] for name in FOR_USERS for words in shell_lines(name) if words[0] == "autoprune"}
    listed = set(re.findall(r"`autoprune ([a-z]+)", (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")))

    assert {"search", "export"} <= named
    assert listed == commands()


@pytest.mark.parametrize("name", FOR_USERS)
def test_yaml_is_a_search_space(name: str, tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text(
        files_of(ROOT / "docs/your-task.md")["Your model, data and task"]["search.yaml"]
    )
    for block in code_in(ROOT / name, "yaml"):
        keys = yaml.safe_load(block).keys()
        whole = "extends" in keys or {"task", "space"} <= keys
        (tmp_path / "s.yaml").write_text(block if whole else f"extends: digits_demo\n{block}", encoding="utf-8")
        assert space_file.load_space(tmp_path / "s.yaml", find_method=methods.find).space.methods()


def imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) of what code takes from this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("autoprune"):
            yield from ((str(node.module), alias.name) for alias in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ap":
            yield "autoprune", node.attr


@pytest.mark.parametrize("name", FOR_USERS)
def test_python_parses_and_takes_what_is_there(name: str) -> None:
    for block in code_in(ROOT / name, "python"):
        for module, attribute in imported(ast.parse(block)):
            there = hasattr(importlib.import_module(module), attribute)
            assert there or importlib.util.find_spec(f"{module}.{attribute}"), f"{module}.{attribute}"


@pytest.mark.parametrize("name", FOR_USERS)
def test_json_is_a_line_that_a_search_prints(name: str) -> None:
    printed = trial_facts(progress(OUTCOMES[0]), replace(OUTCOMES[0], latency_ms=None))
    for block in code_in(ROOT / name, "json"):
        assert list(json.loads(block)) == list(printed)


def as_pattern(shown: str) -> re.Pattern[str]:
    """What output has to look like: `...` stands for anything, and lines may be wrapped elsewhere."""
    return re.compile(".*?".join(map(re.escape, " ".join(shown.split()).split("..."))))


SESSIONS = [(name, block) for name in FOR_USERS for block in code_in(ROOT / name, "console")]


@pytest.mark.parametrize(("name", "session"), SESSIONS)
def test_a_console_shows_what_is_printed(
    name: str, session: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    section = next((files for files in files_of(ROOT / name).values() if "Net(" in files.get("mine.py", "")), {})
    for file, text in section.items():
        (tmp_path / file).write_text(f"# {file}\n{text}")
    for command in filter(None, re.split(r"^\$ ", session, flags=re.MULTILINE)):
        line, _, shown = command.partition("\n")
        parser.main(shlex.split(line)[1:])
        printed = capsys.readouterr()

        assert as_pattern(shown).fullmatch(" ".join(f"{printed.out} {printed.err}".split())), printed


def test_the_page_on_the_report_has_its_sections() -> None:
    template = (ROOT / "analysis/report/templates/report.html").read_text(encoding="utf-8")
    shown = [re.sub(r"{{.*?}}", "*", heading) for heading in re.findall(r"<h2[^>]*>(.*?)</h2>", template)]
    page = (
        (ROOT / "docs/report.md").read_text(encoding="utf-8").partition("## Section by section")[2].partition("##")[0]
    )
    rows = re.findall(r"^\| ([A-Z][^|]*) \|", page, re.MULTILINE)

    assert [row if row in shown else "* against *" for row in rows] == shown


def test_every_network_by_name_is_listed() -> None:
    text = (ROOT / "docs/your-task.md").read_text(encoding="utf-8")

    assert [name for name in zoo.names() if f"`{name}`" not in text] == []


def test_every_page_is_in_the_table_of_contents() -> None:
    entries = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]

    assert set(re.findall(r": (\S+\.md)$", entries, re.MULTILINE)) == set(FOR_USERS)


def test_the_yolo_of_the_page_is_a_network() -> None:
    pytest.importorskip("ultralytics")
    names: dict[str, Any] = {}
    exec(files_of(ROOT / "docs/faq.md")["My YOLO"]["mine.py"], names)

    assert isinstance(names["net"](), torch.nn.Module)


def test_the_example_of_a_method_is_the_one_that_is_installed_in_a_test() -> None:
    page, example = ROOT / "docs" / "writing-a-method.md", ROOT / "tests" / "third_party"

    assert files_of(page)["Writing a method"]["thinnest.py"] == (example / "thinnest.py").read_text(encoding="utf-8")
    assert code_in(page, "toml") == [(example / "pyproject.toml").read_text(encoding="utf-8")]
