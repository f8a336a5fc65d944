"""Pages of benchmarks: tables, numbers, and the part that is written by hand and stays."""

from __future__ import annotations

from pathlib import Path

from autoprune.analysis.benchmarks.markdown import BY_HAND, mean_and_std, table_head, table_row, write_measured


def test_numbers_are_right_aligned_and_text_is_not() -> None:
    assert table_head(["model", "ms", "why"], text=(0, 2)) == ["| model | ms | why |", "|---|---:|---|"]
    assert table_head(["model", "ms"])[1] == "|---|---:|"
    assert table_row(["net", 7, ""]) == "| net | 7 |  |"


def test_one_value_has_no_deviation() -> None:
    assert mean_and_std([91.25]) == "91.25"
    assert mean_and_std([1.0, 2.0, 3.0], digits=1) == "2.0 ± 1.0"


def test_what_was_written_by_hand_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    write_measured(page, "first")
    assert page.read_text() == "first\n"

    page.write_text(f"old\n{BY_HAND}\nBy hand.\n")
    write_measured(page, "new")
    assert page.read_text() == f"new\n{BY_HAND}\nBy hand.\n"
