"""Why trials did not end well: failures by kind and by what they have in common, and what broke each constraint."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from autoprune.analysis.report.settings import grouped, varying
from autoprune.study.folder import Study
from autoprune.study.outcome import BROKEN, Outcome

_NUMBER = re.compile(r"0x[0-9a-f]+|\d+(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE)

#: Standard deviations by which a setting's rate of failures must lie above that of all others to be named.
_TELLING = 3.0


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Trials that failed in the same way: with the same words but for numbers.

    Fields:
        kind: the first line of their error, with an ellipsis for every number.
        error: of the first of them, as a whole.
        ids, methods: of all of them.
        common: what most of them share and others do not; empty if nothing stands out.
    """

    kind: str
    error: str
    ids: tuple[int, ...]
    methods: tuple[str, ...]
    common: str


@dataclass(frozen=True, kw_only=True)
class BrokenLimit:
    """Recipes that were ended right after their cut because they exceed a limit.

    Fields:
        name: of the cost.
        limit: what was allowed.
        ids: of the trials, with what each of them had in `values`.
        share: of all recipes that were cut.
    """

    name: str
    limit: float
    ids: tuple[int, ...]
    values: tuple[float, ...]
    share: float

    @property
    def nearest(self) -> float:
        """What the one had that broke it least."""
        return min(self.values)


def failures_by_kind(study: Study) -> dict[str, list[Outcome]]:
    """The trials that failed, by the kind of their failure; the most frequent first."""
    kinds: dict[str, list[Outcome]] = {}
    for outcome in study.outcomes:
        if outcome.status == "failed":
            kinds.setdefault(_kind(outcome.error), []).append(outcome)
    return dict(sorted(kinds.items(), key=lambda item: -len(item[1])))


def failure_kinds(study: Study, table: Sequence[Mapping[str, Hashable]]) -> list[Failure]:
    """The kinds of failures, most frequent first, with what they have in common.

    Args:
        study: see above.
        table: the settings of each of its outcomes.
    """
    kinds = failures_by_kind(study)
    groups = _setting_groups(table) if kinds else {}
    return [_failure(kind, own, study, groups) for kind, own in kinds.items()]


def broken_limits(study: Study) -> list[BrokenLimit]:
    """What each constraint on costs ended, the one that ended most first."""
    cut = sum(bool(outcome.widths) for outcome in study.outcomes)
    found: dict[tuple[str, float], list[tuple[int, float]]] = {}
    for outcome in study.outcomes:
        if outcome.infeasible:
            name, value, _, limit = (outcome.error or "").removeprefix(BROKEN).split()
            found.setdefault((name, float(limit)), []).append((outcome.id, float(value)))
    limits = [
        BrokenLimit(
            name=name,
            limit=limit,
            ids=tuple(number for number, _ in trials),
            values=tuple(value for _, value in trials),
            share=len(trials) / max(cut, 1),
        )
        for (name, limit), trials in found.items()
    ]
    return sorted(limits, key=lambda one: -len(one.ids))


def _kind(error: str | None) -> str:
    return _NUMBER.sub("…", first_line(error or "no error was recorded"))


def first_line(text: str) -> str:
    """The first line that is not blank."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _setting_groups(table: Sequence[Mapping[str, Hashable]]) -> dict[str, list[str | None]]:
    """Setting -> the group of values that each trial is in."""
    return {name: grouped([one.get(name) for one in table]) for name in varying(table) if name != "seed"}


def _failure(kind: str, own: Sequence[Outcome], study: Study, groups: Mapping[str, list[str | None]]) -> Failure:
    failed = {outcome.id for outcome in own}
    return Failure(
        kind=kind,
        error=own[0].error or "no error was recorded",
        ids=tuple(outcome.id for outcome in own),
        methods=tuple(sorted({outcome.recipe.method.name for outcome in own})),
        common=_common([outcome.id in failed for outcome in study.outcomes], groups),
    )


def _common(failed: Sequence[bool], groups: Mapping[str, list[str | None]]) -> str:
    """The group of values under which trials failed most clearly more often than elsewhere."""
    found = [one for name, labels in groups.items() for one in _rates(name, labels, failed)]
    telling, words = max(found, default=(0.0, ""))
    return words if telling >= _TELLING else ""


def _rates(name: str, labels: Sequence[str | None], failed: Sequence[bool]) -> Iterator[tuple[float, str]]:
    """For every group how many deviations its rate lies above that of all other trials, and both rates in words."""
    total, failures = len(failed), sum(failed)
    counts: dict[str, list[int]] = {}
    for label, lost in zip(labels, failed, strict=True):
        if label is not None:
            cell = counts.setdefault(label, [0, 0])
            cell[0] += 1
            cell[1] += lost
    for label, (inside, lost) in counts.items():
        outside = total - inside
        deviation = (
            math.sqrt(failures / total * (1 - failures / total) * (1 / inside + 1 / outside)) if outside else 0.0
        )
        if deviation:
            words = f"{name} {label}: {lost} of {inside} trials, elsewhere {failures - lost} of {outside}"
            yield (lost / inside - (failures - lost) / outside) / deviation, words
