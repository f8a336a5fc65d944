"""Every key of a space file, section by section."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from autoprune.analysis.reference.docstrings import cell
from autoprune.analysis.reference.fields import Row, rows
from autoprune.recipe import Allocation, Recipe, Target, Training
from autoprune.study.config import Budget, Finalists, Goal, Halving, Resources, Sampler, StudyConfig
from autoprune.study.constraints import Constraints, Latency
from autoprune.study.metric import MetricSpec
from autoprune.tasks.data_spec import DataSpec
from autoprune.tasks.dense_model import ModelSpec
from autoprune.tasks.detection.data import BoxDataSpec, PartSpec
from autoprune.tasks.digit_scenes import SceneSpec
from autoprune.tasks.segmentation.data import MaskDataSpec
from autoprune.tasks.segmentation.losses import LossSpec
from autoprune.tasks.ultralytics.data import YoloDataSpec


class Section(NamedTuple):
    """One mapping of a space file.

    Fields:
        path: where it stands.
        cls: what reads it.
        of: which of several mappings that may stand there; empty if there is one.
    """

    path: str
    cls: type
    of: str = ""


SECTIONS = (
    Section("", StudyConfig),
    Section("space", Recipe),
    Section("space.target", Target),
    Section("space.allocation", Allocation),
    Section("space.training", Training),
    Section("budget", Budget),
    Section("budget.until", Goal),
    Section("resources", Resources),
    Section("sampler", Sampler),
    Section("cascade", Halving),
    Section("finalists", Finalists),
    Section("constraints", Constraints),
    Section("latency", Latency),
    Section("metric", MetricSpec),
    Section("task.model", ModelSpec),
    Section("task.data", DataSpec, "classification"),
    Section("task.data", MaskDataSpec, "segmentation"),
    Section("task.loss", LossSpec, "segmentation"),
    Section("task.data", BoxDataSpec, "detection"),
    Section("task.data.parts.NAME", PartSpec, "detection"),
    Section("task.data", YoloDataSpec, "ultralytics"),
    Section("task.data.arguments", SceneSpec, "digit_scenes"),
)

#: What a recipe has that no space file says: which trial it goes on from is chosen when it is handed out.
NOT_WRITTEN = {Recipe: {"parent"}}


def text() -> str:
    """The sections in Markdown."""
    return "\n".join(line for section in SECTIONS for line in _section(section))


def unexplained() -> list[str]:
    """Keys that have neither a meaning nor a section of their own."""
    return [
        _join(section.path, row.names[0])
        for section in SECTIONS
        for row in rows(section.cls)
        if not row.meaning and not _has_section(_join(section.path, row.names[0]))
    ]


def _section(section: Section) -> Iterator[str]:
    title = f"`{section.path}`" if section.path else "The file"
    yield f"### {title}{f' of {section.of}' if section.of else ''}"
    yield ""
    yield "| key | default | allowed | meaning |"
    yield "|---|---|---|---|"
    yield from (
        _line(row, section) for row in rows(section.cls) if row.names[0] not in NOT_WRITTEN.get(section.cls, ())
    )
    yield ""


def _line(row: Row, section: Section) -> str:
    names, path = ", ".join(f"`{name}`" for name in row.names), _join(section.path, row.names[0])
    below = [f"[Its keys](#{path.replace('.', '')})"] if _has_section(path) else []
    meaning = " ".join([part for part in (cell(row.meaning),) if part] + below)
    return f"| {names} | {row.default or 'has to be there'} | {cell(row.allowed)} | {meaning} |"


def _has_section(path: str) -> bool:
    return any(section.path == path and not section.of for section in SECTIONS)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
