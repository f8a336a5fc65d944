"""cluster: values are filled in or refused in one line; every file that comes with autoprune declares what it uses."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from commands import Capture, fails, works

from autoprune.cli.launch_files import LaunchFile, launch_files
from autoprune.errors import InputError

NAMES = ("aws", "dockerfile", "gcp", "kubernetes", "local_multinode", "onprem", "slurm")
NEEDED = {"aws": ("ami=ami-1",), "gcp": ("project=mine",)}

TEXT = """#!/bin/sh
# A file for tests.
#
# Values:
#   nodes: 2: machines
#   gpus: 4: GPUs of each
#   image: a/b:1: container: of each
#   search: space --minutes 3: what runs
#   project: REQUIRED: who pays
# and a user@host, which is no place
run @nodes@ @nodes@ @image@ @gpus@ @search@ @project@ "${all[@]}"
"""
FILE = LaunchFile(name="some", text=TEXT)


def test_defaults_and_values_come_into_their_places_and_into_the_comment() -> None:
    text = FILE.fill({"nodes": "7", "project": "mine", "search": "other.yaml --set seed=3"})

    assert 'run 7 7 a/b:1 4 other.yaml --set seed=3 mine "${all[@]}"\n' in text
    assert "#   nodes: 7: machines\n" in text
    assert "#   image: a/b:1: container: of each\n" in text
    assert "#   project: mine: who pays\n" in text
    assert "@nodes@" not in text
    assert FILE.summary == "A file for tests."
    assert FILE.values["project"].default is None


def test_a_value_that_looks_like_a_place_is_left_as_it_is() -> None:
    assert "run 2 2 x/@nodes@ 4" in FILE.fill({"project": "mine", "image": "x/@nodes@"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"node": "3"}, r"cluster some: unknown value 'node' \(did you mean 'nodes'\?\); allowed: gpus, image, nodes,"),
        ({}, r"cluster some: no value for project \(who pays\); allowed: --set project=\.\.\."),
        ({"nodes": "0"}, "cluster some: '0' is no value for nodes, machines; allowed: a whole number from 1 on"),
        ({"gpus": "-1"}, "allowed: a whole number from 0 on"),
        ({"nodes": "2.5"}, "a whole number"),
        ({"nodes": "٣"}, "a whole number"),
        ({"image": ""}, "'' is no value for image"),
        ({"image": "a b"}, "allowed: letters, digits and "),
        ({"image": "a'; rm -rf b"}, "no value for image"),
        ({"image": "$(b)"}, "no value for image"),
        ({"image": "-a"}, "no value for image"),
        ({"search": "a 'b'"}, "allowed: words of letters"),
        ({"search": "a\nb"}, "no value for search"),
        ({"search": " a"}, "no value for search"),
    ],
)
def test_what_a_file_cannot_take_is_refused(values: dict[str, str], message: str) -> None:
    needed = {} if values == {} else {"project": "mine"}

    with pytest.raises(InputError, match=message):
        FILE.fill(needed | values)


def test_machines_without_gpus_are_allowed() -> None:
    assert " a/b:1 0 space" in FILE.fill({"project": "mine", "gpus": "0"})


def test_the_list_names_every_file_and_what_it_is_for(capsys: Capture) -> None:
    words = works(capsys, "cluster")

    assert tuple(launch_files()) == NAMES
    for name, file in launch_files().items():
        assert re.search(rf"^ {name} +{re.escape(file.summary)}", words, re.MULTILINE)
        assert file.summary.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_every_place_is_declared_and_every_value_has_a_place(name: str) -> None:
    file = launch_files()[name]
    body = file.text.partition("# Values:\n")[2]

    assert set(re.findall(r"@([a-z_]+)@", file.text)) == set(file.values)
    assert set(re.findall(r"^#   ([a-z_]+): .*: .*$", body, re.MULTILINE)) == set(file.values)
    assert file.values


@pytest.mark.parametrize("name", NAMES)
def test_every_file_takes_its_own_defaults_and_says_them(name: str, capsys: Capture) -> None:
    needed = NEEDED.get(name, ())
    text = works(capsys, "cluster", name, *(("--set", *needed) if needed else ()))
    again = {value.name: value.default or needed[0].partition("=")[2] for value in launch_files()[name].values.values()}

    assert text == launch_files()[name].fill(again)
    assert "@" not in re.sub(r"\[@\]|\$@|\$\{@|B:TERM@120", "", text)


def test_examples_in_the_page_and_in_the_files_are_accepted(root: Path) -> None:
    texts = [(root / "cluster/README.md").read_text(), *(file.text for file in launch_files().values())]
    examples = re.findall(r"autoprune cluster ([a-z_]+) --set ([^#\n`]*?) --out \S+", "\n".join(texts))
    for name, words in examples:
        given = dict(word.split("=", 1) for word in shlex.split(words.replace("REGISTRY", "host")))
        launch_files()[name].fill({key: value.replace("...", "1").replace("$", "") for key, value in given.items()})

    assert len(examples) >= 8


@pytest.mark.parametrize("name", ["onprem", "slurm", "local_multinode"])
def test_scripts_parse(name: str, here: Path) -> None:
    (here / "script").write_text(launch_files()[name].fill({}))

    subprocess.run(["bash", "-n", "script"], check=True)


def test_values_are_listed_with_default_and_meaning(capsys: Capture) -> None:
    words = works(capsys, "cluster", "gcp", "--values")

    assert re.search(r"^ nodes +2 +machines with GPUs", words, re.MULTILINE)
    assert re.search(r"^ project +\(must be given\) +the Google Cloud project that pays", words, re.MULTILINE)


def test_a_filled_in_copy_is_written_once(capsys: Capture, here: Path) -> None:
    words = works(capsys, "cluster", "slurm", "--set", "nodes=7", "gpus=3", "--set", "study=mine", "--out", "s.sbatch")
    text = (here / "s.sbatch").read_text()

    assert words == "written to s.sbatch; the comment at its top says how to use it\n"
    assert "#SBATCH --nodes=7\n" in text
    assert "#SBATCH --gpus-per-node=3\n" in text
    assert "\nstudy=mine\n" in text
    assert os.access(here / "s.sbatch", os.X_OK)
    assert "s.sbatch: already exists; allowed: another name, or --overwrite" in fails(
        capsys, "cluster", "slurm", "--out", "s.sbatch"
    )
    works(capsys, "cluster", "kubernetes", "--out", "s.sbatch", "--overwrite")
    assert "kind: RayJob" in (here / "s.sbatch").read_text()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["slrum"], "did you mean 'slurm'"),
        (["gcp"], r"no value for project .*--set project="),
        (["slurm", "--set", "node=3"], "unknown value 'node'"),
        (["slurm", "--set", "nodes"], "--set: 'nodes' gives nothing a value; allowed: NAME=VALUE"),
        (["slurm", "--set", "nodes=3", "nodes=4"], "--set: nodes is given twice"),
        (["slurm", "--out", "no/such/folder.sh"], "cannot write"),
        (["slurm", "--overwrite"], "--overwrite without --out"),
        (["slurm", "--values", "--set", "nodes=3"], "--values fills nothing in; allowed: --values alone"),
        (["--values"], "which file is meant\\?; allowed: one of aws, dockerfile"),
        (["--out", "x"], "allowed: one of aws"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(argv: list[str], message: str, capsys: Capture) -> None:
    assert re.search(message, fails(capsys, "cluster", *argv))
