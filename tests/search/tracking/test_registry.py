"""Trackers by name: what is refused before a search begins."""

from __future__ import annotations

import importlib.util
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from autoprune.errors import InputError
from autoprune.search.tracking import registry
from autoprune.search.tracking.mlflow import MLflow
from autoprune.search.tracking.optuna_journal import OptunaJournal


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every package that a tracker of ours needs, as far as anybody looks."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())


@pytest.mark.usefixtures("installed")
def test_options_are_the_trackers_fields() -> None:
    built = registry.build_trackers([{"name": "mlflow", "uri": "http://there:5000"}])

    assert built == {"mlflow": MLflow(uri="http://there:5000")}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("choices", "what"),
    [
        ([{"name": "mlfow"}], r"trackers\[0\].name: unknown tracker 'mlfow' \(did you mean 'mlflow'\?\); allowed: ml"),
        ([{"uri": "there"}], r"trackers\[0\].name: unknown tracker None"),
        ([{"name": "mlflow", "url": "there"}], r"trackers\[0\]: unknown key 'url'"),
        ([{"name": "wandb", "mode": "off"}], r"trackers\[0\].mode: .*'off'"),
        ([{"name": "wandb"}, {"name": "wandb"}], r"trackers\[1\]: 'wandb' is named twice"),
    ],
)
def test_what_cannot_be_meant_is_refused(choices: list[dict[str, Any]], what: str) -> None:
    with pytest.raises(InputError, match=what):
        registry.build_trackers(choices)


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_a_package_that_is_absent_is_refused_with_the_extra_that_brings_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    what = rf"{name!r} needs a package that is absent; allowed: pip install 'autoprune\[{name}\]'"

    with pytest.raises(InputError, match=what):
        registry.build_trackers([{"name": name}])


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_the_extra_is_one_of_the_package(name: str, root: Path) -> None:
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (tracker,) = registry.build_trackers([{"name": name}]).values()

    assert tracker.extra in extras


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("autoprune.search.tracking.optuna_journal:OptunaJournal", None),
        ("autoprune.search.tracking.absent:Tracker", "cannot be loaded: ModuleNotFoundError"),
        (
            "collections:OrderedDict",
            "collections:OrderedDict is no tracker; allowed: a dataclass that extends",
        ),
    ],
)
def test_a_package_adds_one_by_an_entry_point(monkeypatch: pytest.MonkeyPatch, value: str, what: str | None) -> None:
    point = metadata.EntryPoint(name="notes", value=value, group=registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "autoprune.trackers" else [])
    if what is None:
        assert registry.build_trackers([{"name": "notes"}]) == {"notes": OptunaJournal()}
        return

    with pytest.raises(InputError, match=what):
        registry.build_trackers([{"name": "notes"}])
