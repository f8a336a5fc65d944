"""Wrong options are one line and exit code 2, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Capture, fails


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        ([], "required: COMMAND"),
        (["serch", "digits_demo"], "invalid choice: 'serch'"),
        (["search"], "required: SPACE"),
        (["search", "digits_demo", "--trials", "0"], "argument --trials: 0 is out of range; allowed: above 0"),
        (["search", "digits_demo", "--trials", "2.5"], "'2.5' is not a number; allowed: a whole number"),
        (["search", "digits_demo", "--minutes", "nan"], "argument --minutes: nan is out of range"),
        (["search", "digits_demo", "--minute", "3"], "unknown option '--minute', did you mean --minutes?"),
        (["search", "digits_demo", "--cake=3"], "unknown option '--cake' (see: autoprune search --help)"),
        (["export", "runs/x"], "required: --to"),
        (["export", "runs/x", "--max-flops", "1.5", "--to", "o"], "argument --max-flops: 1.5 is out of range"),
        (["export", "runs/x", "--max-flops", "0", "--to", "o"], "allowed: (0, 1]"),
        (["export", "runs/x", "--max-latency", "5s", "--to", "o"], "argument --max-latency: '5s' is not a number"),
        (["export", "runs/x", "--max-latency", "0ms", "--to", "o"], "argument --max-latency: 0 is out of range"),
        (["prune", "resnet20", "--method", "l1", "--flops", "1.5"], "argument --flops: 1.5 is out of range"),
        (["inspect", "resnet20", "--input", "3x32"], "'3x32' is no shape; allowed: CxHxW"),
        (["inspect", "resnet20", "--input", "3x0x32"], "'3x0x32' is no shape"),
        (["finish", "runs/x", "--seeds", "0"], "argument --seeds: 0 is out of range; allowed: above 0"),
        (["finish", "runs/x", "--images", "1e5"], "'1e5' is not a number; allowed: a whole number"),
        (["replay", "runs/x", "--trial", "one"], "argument --trial: invalid int value: 'one'"),
    ],
)
def test_wrong_options(argv: list[str], what: str, capsys: Capture, here: Path) -> None:
    assert what in fails(capsys, *argv)
    assert list(here.iterdir()) == []
