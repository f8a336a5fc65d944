"""Every key of a space file has its line."""

from __future__ import annotations

import dataclasses

import pytest

from autoprune.analysis.reference import keys
from autoprune.study.config import StudyConfig
from autoprune.tasks import data


def test_every_key_is_explained() -> None:
    assert keys.unexplained() == []


def test_a_key_without_a_meaning_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclasses.dataclass
    class Silent:
        """Nothing is said of its field."""

        eleven: int = 11

    monkeypatch.setattr(keys, "SECTIONS", (keys.Section("silent", Silent),))

    assert keys.unexplained() == ["silent.eleven"]


def test_every_part_of_the_file_that_has_keys_has_a_table() -> None:
    parts = [part for part in dataclasses.fields(StudyConfig) if part.default_factory is not dataclasses.MISSING]

    assert {part.name for part in parts} - {section.path for section in keys.SECTIONS} == set()


def test_a_recipe_is_not_told_its_parent() -> None:
    assert "| `parent` |" not in keys.text()
    assert "| `weights` | `trained` | `trained`, `scratch`, `front` |" in keys.text()


def test_data_sets_are_named() -> None:
    assert [name for name in data.names() if f"`{name}`" not in keys.text()] == []
