"""study.yaml as it is read: what may stand in it, checked before anything is shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune.errors import check_name
from autoprune.schema import expect_mapping, read_field, read_value
from autoprune.study.config import StudyConfig, check_objectives, with_named_trackers
from autoprune.study.yaml_text import read_yaml

#: What a search adds to its configuration: facts about the model and the machine.
FACTS: Mapping[str, Any] = {
    "dense": Mapping[str, float],
    "weights": str,
    "groups": tuple[Any, ...],
    "runtime": Mapping[str, Any],
    "remarks": tuple[str, ...],
    "versions": Mapping[str, str],
}

#: Read where they are used, by what knows more of them: space and task when the search goes on.
_LATER = ("space", "task")


def read_config(path: Path) -> dict[str, Any]:
    """The plain data of a `study.yaml`.

    Raises:
        InputError: it cannot be read, is no YAML, or holds an unknown key or a value of the wrong kind.
    """
    config, where = dict(expect_mapping(read_yaml(path, as_written=True), str(path))), str(path)
    for key in config:
        check_name(key, (*StudyConfig.__dataclass_fields__, *FACTS), kind="key", where=where)
    for key, item in with_named_trackers(config).items():
        place = f"{where}: {key}"
        if key in FACTS:
            _check_fact(key, item, place)
        elif key not in _LATER:
            read_field(StudyConfig, key, item, place)
    expect_mapping(config.get("task", {}), f"{where}: task")
    if "objectives" in config:
        check_objectives(tuple(config["objectives"]), f"{where}: objectives")
    return config


def _check_fact(key: str, item: object, place: str) -> None:
    if key == "groups" and isinstance(item, list):
        for number, group in enumerate(item):
            expect_mapping(group, f"{place}[{number}]")
    if item is not None:
        read_value(FACTS[key], item, place, {})
