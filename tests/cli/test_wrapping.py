"""Lines on a terminal break between words; elsewhere they stay whole."""

from __future__ import annotations

import io

import pytest

from autoprune.cli.wrapping import say, wrapped

WORDS = "a front of accuracy against FLOPs that a search has found " * 3


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")


def test_lines_break_between_words_and_nowhere_else() -> None:
    lines = wrapped(WORDS, Terminal()).split("\n")

    assert max(map(len, lines)) <= 40
    assert " ".join(lines).split() == WORDS.split()


def test_a_path_stays_whole() -> None:
    path = "/".join(["folder-of-mine"] * 5)

    assert f"\n{path}\n" in wrapped(f"it lies in {path} as always", Terminal())


def test_a_pipe_gets_the_line_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say(WORDS)

    assert capsys.readouterr().out == f"{WORDS}\n"
