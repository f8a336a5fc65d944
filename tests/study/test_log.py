"""Logs grow line by line; a last line that a crash has torn is left out, and cut off before the next one."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from autoprune.errors import InputError
from autoprune.study.log import append_line, parse_line, read_lines, repair_tail


def test_line_numbers_count_from_one(tmp_path: Path) -> None:
    append_line(tmp_path / "log", "a")
    append_line(tmp_path / "log", "b")

    assert [(1, "a"), (2, "b")] == list(read_lines(tmp_path / "log"))


def test_of_a_line_that_does_not_fit_nothing_stays(tmp_path: Path) -> None:
    append_line(tmp_path / "log", "a" * 10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (14, before[1]))  # room for three bytes more
    try:
        with pytest.raises(OSError, match="File too large"):
            append_line(tmp_path / "log", "b" * 7)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    append_line(tmp_path / "log", "b" * 7)

    assert (tmp_path / "log").read_text() == "a" * 10 + "\n" + "b" * 7 + "\n"


def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert list(read_lines(tmp_path / "log")) == []
    repair_tail(tmp_path / "log")
    assert list(tmp_path.iterdir()) == []


def test_a_torn_tail_is_cut_off(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\ntwo\nthr")

    assert [(1, "one"), (2, "two")] == list(read_lines(log))
    repair_tail(log)
    append_line(log, "three")
    assert log.read_bytes() == b"one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("line", "message"), [("{", "log:3: not JSON: Expecting"), ("[1]", "log:3: expected an object")]
)
def test_a_line_is_one_object(line: str, message: str) -> None:
    assert parse_line('{"a": 7}', "log:3") == {"a": 7}
    with pytest.raises(InputError, match=message):
        parse_line(line, "log:3")
