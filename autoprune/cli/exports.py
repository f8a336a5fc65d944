"""export, verify: one model of a study as files, and what the files score."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune.cli.common import find_outcome, slower_line
from autoprune.cli.picking import picked_limits
from autoprune.cli.view import print_json, show
from autoprune.cli.wrapping import say
from autoprune.errors import ExportError, InputError
from autoprune.study import choosing
from autoprune.study.folder import Study, load_study
from autoprune.study.metric import MetricSpec, read_metric
from autoprune.study.outcome import Outcome

#: The format that computes something else than the model, see `autoprune.export.layout`.
INT8 = "int8"


def export(args: Namespace) -> None:
    """Write one model of a study in every format."""
    from autoprune.export.formats import read_record
    from autoprune.export.model_card import int8_loss
    from autoprune.export.study_model import Demands, export_outcome
    from autoprune.tasks import load_task

    study = load_study(args.folder)
    outcome = _chosen_outcome(study, args)
    also = tuple(name for name in ("int8", "openvino") if getattr(args, name))
    demands = Demands(also=also, for_hub=args.hub_layout, scored=not args.unscored)
    written = export_outcome(study, outcome, args.to, lambda: load_task(study.config["task"]), demands)
    say(_exported_line(study.metric, outcome))
    if (slower := slower_line(outcome)) is not None:
        say(slower)
    record = read_record(args.to)
    show(_format_rows(args.to, record, study.metric), numbers=("MB", "difference", study.metric.name))
    if lost := int8_loss(record):
        say(lost)
    for file in written:
        print(file)
    for name, reason in (record.get("not_written") or {}).items():
        say(f"{name} not written: {reason}")


def _format_rows(folder: Path, record: Mapping[str, Any], metric: MetricSpec) -> list[dict[str, Any]]:
    """A row per format: how large its files are, how far they are from the model, what they score."""
    scores = record["scores"]
    return [
        {
            "format": name,
            "MB": f"{sum((folder / path).stat().st_size for path in paths) / 1e6:.2f}",
            "difference": f"{record['relative_error'][name]:.1e}",
            **({metric.name: metric.shown(scores[name])} if scores else {}),
        }
        for name, paths in record["files"].items()
    ]


def _exported_line(metric: MetricSpec, outcome: Outcome) -> str:
    """What is handed over, in one line."""
    time = "" if outcome.latency_ms is None else f", {outcome.latency_ms:.3g} ms"
    again, tested = "", ""
    if outcome.test_metric is not None:
        again = f", trained again on {outcome.recipe.training.images:,} images"
        tested = f" ({metric.shown(outcome.test_metric)} on the test split)"
    reached = f"{metric.name} {metric.shown(outcome.metric or 0.0)}{tested}"
    return f"trial {outcome.id}{again}: {reached} at {outcome.flops_ratio:.1%} of the FLOPs{time}"


def verify(args: Namespace) -> None:
    """Score every file of an exported folder; `ExportError` unless all have the metric that was reported."""
    from autoprune.export import formats

    record = formats.read_record(args.folder)
    metric = read_metric(record.get("metric") or {}, f"{args.folder}: metric")
    reported = (record.get("outcome") or {}).get(metric.name)
    if reported is None or not record.get("task"):
        raise InputError(f"export.json names no task or {metric.name} to compare with", where=str(args.folder))
    out = args.folder.absolute()
    with formats.task_of(out) as task:
        count = len(task.validation)
        found = formats.verify(out, task)
    expected = {**dict.fromkeys(found, reported), **_of_int8(record)}
    rows = [_verification_row(name, value, expected[name], count, metric) for name, value in found.items()]
    if args.json:
        print_json({"metric": metric.name, "reported": reported, "images": count, "found": found})
    else:
        title = f"{args.folder}: {count} validation images, reported {metric.name} {metric.shown(reported)}"
        show(rows, title=title, numbers=(metric.name, "off"))
    wrong = [row["file"] for row in rows if not row["as reported"]]
    if wrong:
        raise ExportError(f"{', '.join(wrong)}: not the {metric.name} that was reported", where=str(args.folder))


def _of_int8(record: Mapping[str, Any]) -> dict[str, float]:
    """What INT8 was scored when it was written: it need not have what the model has."""
    scores = record.get("scores") or {}
    return {INT8: scores[INT8]} if INT8 in scores else {}


def _verification_row(name: str, value: float, reported: float, images: int, metric: MetricSpec) -> dict[str, Any]:
    # Kernels add in another order: a logit on the edge may fall to the other side, in one image of a thousand. A metric
    # with one end is no share of images, and moves as little as the outputs do. INT8 kernels of another processor round
    # otherwise.
    per_thousand = 5 if name == INT8 else 1
    allowed = math.ceil(per_thousand * images / 1000) / images if metric.bounded else 0.001 * per_thousand
    as_reported = abs(metric.height(value) - metric.height(reported)) < allowed + 1e-9
    off = metric.shown_difference(value - reported)
    return {"file": name, metric.name: metric.shown(value), "as reported": as_reported, "off": off}


def _chosen_outcome(study: Study, args: Namespace) -> Outcome:
    limits = picked_limits(args, study, trials="--trial" if args.trial is not None else None)
    if args.trial is not None:
        trained_again = {} if args.searched else choosing.best_finalists(study)
        return trained_again.get(args.trial) or find_outcome(study, args.trial)
    return choosing.choose(study, limits, searched=args.searched)
