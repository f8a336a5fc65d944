"""Every command has its section, as its own help has it."""

from __future__ import annotations

import pytest

from autoprune.analysis.reference import commands

PARSERS = commands.parsers()


@pytest.mark.parametrize("name", PARSERS)
def test_a_command_has_its_options_and_examples(name: str) -> None:
    section = commands.text().partition(f"## `autoprune {name}`\n")[2].partition("\n## ")[0]
    spelt = {option for action in PARSERS[name]._actions for option in action.option_strings} - {"-h", "--help"}

    assert [option for option in spelt if f"`{option}" not in section] == []
    assert f"```sh\nautoprune {name}" in section


def test_values_stand_beside_their_option() -> None:
    text = commands.text()

    assert "| `--minutes M` | end M minutes from now (default: the space's) |" in text
    assert "| `--until END` |" in text
    assert "| `--knee` | where the front bends most (default) |" in text
    assert "| `DIR` | a study folder, or s3://bucket/path, written by autoprune search |" in text
