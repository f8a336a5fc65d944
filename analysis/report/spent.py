"""What a search cost, in hours of the clock, of workers and of GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.analysis.report.words import duration, plural
from autoprune.study.folder import Study
from autoprune.study.outcome import Outcome


def spent(study: Study, model: Outcome | None) -> list[tuple[str, str]]:
    """Names and amounts; nothing before the first trial has ended.

    Args:
        study: see above.
        model: that the headline is about, if there is one.
    """
    if not study.outcomes:
        return []
    workers = len({interval.worker for one in study.outcomes for interval in one.run_intervals})
    rows = [("From start to end", duration(max(one.finished for one in study.outcomes)))]
    rows.append((f"Of {plural(workers, 'worker')} together", duration(_seconds(study.outcomes))))
    rows += _gpu_hours(study, "GPU-hours of the search", study.outcomes)
    if study.finalists:
        rows.append(("Finalists", duration(_seconds(study.finalists))))
        rows += _gpu_hours(study, "GPU-hours of finalists", study.finalists)
    images = sum(one.own_images for one in study.outcomes)
    rows.append(("Training images seen", f"{images:,}"))
    if model is not None:
        rows.append((f"Until trial {model.id} was found", duration(model.finished)))
    return rows


def _seconds(outcomes: Sequence[Outcome]) -> float:
    return sum(one.duration for one in outcomes)


def _gpu_hours(study: Study, name: str, outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    gpus = float((study.config.get("resources") or {}).get("gpus_per_trial") or 0)
    return [(name, f"{gpus * _seconds(outcomes) / 3600:.3g}")] if gpus else []
