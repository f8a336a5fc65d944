"""The front of a study as a static SVG for a page of text: `python -m autoprune.analysis.report.picture DIR --to FILE`.

Written from a template, so that it needs neither a browser nor a drawing library; it follows the reader's light or
dark setting.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.analysis.report import facts, summary
from autoprune.analysis.report.front_figure import metric_ranges
from autoprune.analysis.report.looks import method_looks
from autoprune.analysis.report.metric_words import axis_title, value_text
from autoprune.analysis.report.templating import templates
from autoprune.errors import AutopruneError, InputError
from autoprune.files import write_atomically
from autoprune.study import pareto
from autoprune.study.folder import Study, load_study
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where the plotting area lies in the picture, in pixels, and the values of the metric at its bottom and top."""

    low: float
    high: float
    left: float = 72.0
    right: float = 700.0
    top: float = 44.0
    bottom: float = 400.0

    def x(self, flops_ratio: float) -> float:
        """Pixels from the left of a FLOPs ratio; the area spans 0 to 1.04."""
        return round(self.left + (self.right - self.left) * flops_ratio / 1.04, 1)

    def y(self, value: float) -> float:
        """Pixels from the top of a value of the metric."""
        return round(self.bottom - (self.bottom - self.top) * (value - self.low) / (self.high - self.low), 1)


def write_picture(study: Study, path: str | Path) -> Path:
    """Draw the completed trials and the front of `study` to the SVG file `path`, and return the path.

    Trials below the range of the front are left out, so that the front can be read.

    Raises:
        InputError: the file is not an SVG, cannot be written to, or `study.yaml` lacks what a search writes into it.
    """
    if Path(path).suffix != ".svg":
        raise InputError(
            f"unknown kind of picture {str(path)!r}", where="--to", allowed="a file name that ends in .svg"
        )
    return write_atomically(path, templates().get_template("front.svg").render(_picture_context(study)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the picture of one study; 0 when done, an error's exit code and one line otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m autoprune.analysis.report.picture", description="Draw the front of a study."
    )
    parser.add_argument("study", metavar="DIR", help="a study folder")
    parser.add_argument("--to", metavar="FILE", required=True, help="the SVG file to write")
    options = parser.parse_args(arguments)
    try:
        path = write_picture(load_study(options.study), options.to)
    except AutopruneError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{path}\n")
    return 0


def _picture_context(study: Study) -> dict[str, Any]:
    by_flops = replace(study.tradeoff, costs=("flops",))  # whatever else was an objective, FLOPs are drawn
    members = pareto.front(study.outcomes, by_flops)
    low, high = metric_ranges(study, members)["front"]
    frame = Frame(low=low, high=high)
    candidates = pareto.candidates(study.outcomes, by_flops)
    looks = method_looks(outcome.recipe.method.name for outcome in study.outcomes)
    colours = {name: look.colour for name, look in looks.items()}
    dense, metric = facts.dense_model(study).metric, study.metric
    return {
        "width": 840,
        "height": 460,
        **{name: getattr(frame, name) for name in ("left", "right", "top", "bottom")},
        "title": summary.title(study),
        "description": summary.summarise(study).headline,
        "y_title": axis_title(metric, "Validation"),
        "x_ticks": [{"at": frame.x(share / 5), "text": f"{20 * share} %"} for share in range(6)],
        "y_ticks": [{"at": frame.y(value), "text": _tick_text(value, metric)} for value in _round_values(low, high)],
        "dense": {"at": frame.y(dense), "text": f"dense {value_text(dense, metric)}"},
        "staircase": _front_path(frame, members),
        "marks": list(_trial_marks(frame, candidates, members, colours)),
        "legend": [{"name": name, "colour": colours[name]} for name in _method_names(candidates)],
    }


def _tick_text(value: float, metric: MetricSpec) -> str:
    return f"{100 * value:g} %" if metric.unit == "%" else f"{value:g}"


def _method_names(outcomes: Iterable[Outcome]) -> list[str]:
    return sorted({outcome.recipe.method.name for outcome in outcomes})


def _trial_marks(
    frame: Frame, candidates: Sequence[Outcome], members: Sequence[Outcome], colours: dict[str, str]
) -> Iterable[dict[str, Any]]:
    """The marks, those of members last, so that they lie on top."""
    on_front = {member.id for member in members}
    for outcome in sorted(candidates, key=lambda o: o.id in on_front):
        value, flops = outcome.metric or 0.0, outcome.flops_ratio or 0.0
        if frame.low <= value <= frame.high:
            colour = colours[outcome.recipe.method.name]
            yield {"x": frame.x(flops), "y": frame.y(value), "colour": colour, "member": outcome.id in on_front}


def _front_path(frame: Frame, members: Sequence[Outcome]) -> str:
    """The path through the members: level to the next member's cost, then to its metric."""
    corners = [(frame.x(member.flops_ratio or 0.0), frame.y(member.metric or 0.0)) for member in members]
    return " ".join(f"H{x} V{y}" if i else f"M{x} {y}" for i, (x, y) in enumerate(corners))


def _round_values(low: float, high: float) -> list[float]:
    """About six round numbers inside [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 6
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(float(value), 9) for value in np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step]


if __name__ == "__main__":
    sys.exit(main())
