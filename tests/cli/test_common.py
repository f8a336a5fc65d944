"""A trial by its number, a model by its name."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path

import pytest
from commands import OUTCOMES, Capture, fails, works, write_study

from autoprune.cli.common import without_collector


@pytest.mark.parametrize("command", [["replay"], ["export", "--to", "out"]])
def test_an_unknown_trial(command: list[str], capsys: Capture, here: Path) -> None:
    study = write_study(here / "study", OUTCOMES)

    line = fails(capsys, command[0], study, "--trial", "4", *command[1:])

    assert "no ended trial 4" in line
    assert "allowed: 3, 5, 7, 9" in line


def test_inspect_of_a_model_of_ones_own(capsys: Capture, here: Path) -> None:
    (here / "net_of_seven.py").write_text(
        "from torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 5, 3), nn.Flatten())\n"
        "def wrong():\n    return 'a model'\n"
    )
    text = works(capsys, "inspect", "net_of_seven:build", "--input", "3x9x9")

    assert "smallest reachable" in text
    assert "frozen" in text
    assert "returns a str" in fails(capsys, "inspect", "net_of_seven:wrong")
    assert "cannot be imported" in fails(capsys, "inspect", "net_of_seven:absent")
    assert "unknown model 'resnet2'" in fails(capsys, "inspect", "resnet2")


def test_the_collector_is_as_it_was_after_the_block() -> None:
    for enabled in (False, True):
        (gc.enable if enabled else gc.disable)()
        with contextlib.suppress(KeyError), without_collector():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == enabled
