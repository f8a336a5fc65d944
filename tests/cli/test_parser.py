"""What holds for every command: one line for what went wrong, and nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import OUTCOMES, Capture, fails, write_space, write_study

from autoprune.cli import lookup, parser, studies
from autoprune.study.config import Finalists
from autoprune.study.finalists import TIMES_LONGER


def test_no_study(capsys: Capture) -> None:
    for argv in (
        ["status", "x"],
        ["report", "x"],
        ["resume", "x"],
        ["finish", "x"],
        ["replay", "x", "--trial", "1"],
        ["export", "x", "--to", "y"],
    ):
        assert "no study in 'x'" in fails(capsys, *argv)


@pytest.mark.parametrize("out", ["file/below", "/proc/autoprune"])
@pytest.mark.parametrize("command", ["search", "prune", "export"])
def test_a_folder_that_cannot_be_written(command: str, out: str, capsys: Capture, here: Path) -> None:
    (here / "file").write_text("")
    study = write_study(here / "study", OUTCOMES) if command == "export" else ""
    if study:
        (here / "study/models/5").mkdir(parents=True)
    before = sorted(here.rglob("*"))
    argv = {
        "search": ["search", write_space(here / "s.yaml"), "--in-process", "--out", out],
        "prune": ["prune", "lenet5", "--input", "1x28x28", "--method", "l1", "--flops", "0.5", "--to", out],
        "export": ["export", study, "--trial", "5", "--to", out],
    }[command]

    assert out.rsplit("/", maxsplit=1)[-1] in fails(capsys, *argv)
    assert sorted(path for path in here.rglob("*") if path.suffix != ".yaml") == [
        p for p in before if p.suffix != ".yaml"
    ]


def test_the_help_of_finish_names_the_defaults() -> None:
    words = " ".join(parser.build_parser().format_help().split())
    finish = parser.build_parser()._subparsers._group_actions[0].choices["finish"]  # type: ignore[union-attr,index]
    text = " ".join(finish.format_help().split())

    assert "train the front again" in words
    assert f"else {Finalists().seeds})" in text
    assert f"else {Finalists().most})" in text
    assert f"else {TIMES_LONGER} times those of the longest recipe)" in text


def test_a_bug_is_one_line_and_a_file(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "spaces", lambda args: 1 // 0)

    line = fails(capsys, "spaces", code=1)

    file = Path(line.rsplit(" ", 1)[1].rstrip(")"))
    assert "ZeroDivisionError" in line
    assert "1 // 0" in file.read_text()
    file.unlink()


def test_the_keyboard_ends_a_command_with_one_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lookup, "spaces", interrupt)

    assert "interrupted" in fails(capsys, "spaces", code=1)


@pytest.mark.parametrize(
    ("words", "again"),
    [
        (["search", "digits_demo", "--out", "my study"], "autoprune resume 'my study'"),
        (["resume", "my study"], "autoprune resume 'my study'"),
        (["finish", "my study"], "autoprune finish 'my study'"),
    ],
)
def test_the_command_that_goes_on_is_named(
    words: list[str], again: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    def interrupt(args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(studies, words[0], interrupt)
    assert "interrupted before the first trial: nothing was written" in fails(capsys, *words, code=1)
    write_study(here / "my study", OUTCOMES)

    assert fails(capsys, *words, code=1).endswith(f"interrupted; go on with: {again}")


@pytest.mark.parametrize("argv", [["cluster", "slurm"], ["--help"]])
def test_a_reader_that_leaves_is_no_error_to_show(argv: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run([sys.executable, "-m", "autoprune", *argv], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)

    assert ran.stderr == b""
