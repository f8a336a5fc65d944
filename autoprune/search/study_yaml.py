"""study.yaml: the configuration of a study and facts about its model, written when it starts, read when it goes on."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from autoprune import methods
from autoprune.errors import InputError, ModelError
from autoprune.files import writing, written_whole
from autoprune.schema import read, to_plain
from autoprune.search.prepare import Prepared
from autoprune.study.config import StudyConfig
from autoprune.study.folder import Study, StudyFolder
from autoprune.tasks.weight_files import digest_of
from autoprune.training.runtime import Runtime
from autoprune.trial.shared import SharedState

#: Packages whose versions are written into `study.yaml`.
VERSIONS = ("autoprune", "torch", "ray", "optuna", "numpy")


def check_new_folder(path: Path) -> None:
    """Raise `InputError` unless a study can be written there: the folder is new or empty, and its parent lets us."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(
            "exists already", where=str(path), allowed="a new or empty folder, or `autoprune resume` for a study"
        )
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError("cannot be written", where=str(path), allowed="a folder that you may write to")


def create_folder(folder: StudyFolder, prepared: Prepared, dense: float) -> None:
    """Make the study folder with its `study.yaml`; the only file a search starts with.

    Args:
        dense: the metric of the dense model on the validation split.
    """
    cost: Mapping[str, Any] = to_plain(prepared.shared.dense_cost)
    facts = {
        **prepared.config.to_plain(),
        "dense": {
            prepared.config.tradeoff.metric.name: dense,
            **{name: int(value) for name, value in cost.items()},
            "images": len(prepared.shared.task.validation),  # how far its metric, and every other, can be trusted
        },
        "weights": digest_of(prepared.shared.model),
        "groups": _describe_groups(prepared.shared),
        "runtime": to_plain(prepared.shared.runtime),
        **({"remarks": remarks} if (remarks := [*_remarks(prepared.shared), *prepared.remarks]) else {}),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
    }
    text = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
    with writing(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
        with written_whole(folder.config) as beside:
            beside.write_text(text, encoding="utf-8")
        folder.models.mkdir()


def _remarks(shared: SharedState) -> list[str]:
    return [text for text in (*shared.task.remarks, shared.task.weights_remark(shared.model)) if text]


def stored_config(study: Study) -> StudyConfig:
    """The configuration of a study that began earlier."""
    known = {key: item for key, item in study.config.items() if key in StudyConfig.__dataclass_fields__}
    return StudyConfig.from_plain(known, str(study.folder.config), check_method=methods.build)


def stored_runtime(study: Study) -> Runtime:
    """How the trials of a study that began earlier compute."""
    stored = study.config.get("runtime")
    if isinstance(stored, Mapping):  # until its steps were graphs a runtime could compile
        stored = {name: value for name, value in stored.items() if name != "compile"}
    return read(Runtime, stored, f"{study.folder.config}: runtime")


def check_same_model(study: Study, shared: SharedState) -> None:
    """Raise `ModelError` if the model's groups or its weights are not those the study began with.

    A study without a note of its weights, from before they were noted, is held to its groups alone.
    """
    where = str(study.folder.config)
    if _describe_groups(shared) != study.config.get("groups"):
        raise ModelError("the model has other channel groups than when the study began", where=where)
    if study.config.get("weights") not in (None, digest_of(shared.model)):
        allowed = "the weights of then; of a network that the space trains they lie in $AUTOPRUNE_DATA/trained"
        raise ModelError("the dense model has other weights than when the study began", where=where, allowed=allowed)


def _describe_groups(shared: SharedState) -> list[dict[str, Any]]:
    return [
        {"id": group.id, "size": group.size, "stage": group.stage, "frozen": group.frozen}
        for group in shared.graph.groups
    ]
