"""Progress of a search, and a study folder whose driver tells of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoprune.study.folder import StudyFolder
from autoprune.study.log import append_line
from autoprune.study.metric import ACCURACY
from autoprune.study.outcome import Outcome
from autoprune.study.progress import FrontPoint, SearchState, StudyProgress


def progress(*latest: Outcome, **changes: Any) -> StudyProgress:
    """A search in its middle, with 30 members on its front."""
    plain = {
        "done": 2,
        "running": 1,
        "stopped": 3,
        "failed": 4,
        "seconds": 61.0,
        "eta": 3700.0,
        "paused": 7,
        "used": 0.31,
    }
    points = tuple(FrontPoint(id=n, method="l1", costs={"flops": n / 50}, metric=n / 100) for n in range(1, 31))
    return StudyProgress(
        **{**plain, "metric": ACCURACY, "dense_metric": 0.97, "front": points, "latest": latest, **changes}
    )


def tell(study: str | Path, state: str = "running", error: str | None = None, **changes: Any) -> SearchState:
    """Write progress.json as the driver does; returns what it says."""
    said = SearchState(state=state, error=error, progress=progress(**changes))
    StudyFolder(Path(study)).progress.write_text(said.to_json())
    return said


def end_trial(study: str | Path, *outcomes: Outcome) -> None:
    """Append to the log as the driver does."""
    for outcome in outcomes:
        append_line(StudyFolder(Path(study)).outcomes, outcome.to_json())
