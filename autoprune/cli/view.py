"""A search as it is shown: a live picture on a terminal, JSON lines elsewhere; and plain tables."""

from __future__ import annotations

import json
import math
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autoprune.schema import to_plain
from autoprune.study.worker_name import WorkerName

if TYPE_CHECKING:
    from autoprune.study.folder import Study
    from autoprune.study.outcome import Outcome
    from autoprune.study.progress import StudyProgress, View


#: Members of the front that the live picture shows, evenly spread; the summary at the end shows all.
ROWS = 12

_HEADINGS = {"flops": "FLOPs"}

#: The columns of `finalists_table` that hold the metric, by the rows of `finalists.rows`.
FINALIST_NUMBERS = {
    "validation": "validation",
    "validation_std": "+-",
    "test": "test",
    "test_std": "+- ",
    "against_dense": "against dense",
}


#: What a table has between two columns.
BETWEEN = "   "

#: Width of a table that is not on a terminal: wide enough for the names of layers, nothing is cut off.
PIPE_WIDTH = 240


def open_view(stream: TextIO) -> View:
    """The live picture if `stream` is a terminal, else JSON lines."""
    return LiveView(Console(file=stream)) if stream.isatty() else JsonView(stream)


class JsonView:
    """One JSON object a line: every trial as it ends, and every finalist, by the trial that it trains again; at first
    how many workers there are and how trials come to them, and where Ray's dashboard is, if it runs; what goes wrong
    beside the search; the model that is looked for, whenever another one is the cheapest; what is done before and after
    the trials; and that the user has ended it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream
        self._workers: str | None = None
        self._dashboard: str | None = None
        self._warnings = 0
        self._stopping = False
        self._goal: int | None = None

    def update(self, progress: StudyProgress) -> None:
        """Print the trials that ended since the last update."""
        if progress.workers != self._workers:
            self._workers = progress.workers
            self._print_line({"event": "workers", "text": progress.workers})
        if progress.dashboard != self._dashboard:
            self._dashboard = progress.dashboard
            self._print_line({"event": "dashboard", "url": progress.dashboard})
        for warning in progress.warnings[self._warnings :]:
            self._print_line({"event": "warning", "text": warning})
        self._warnings = len(progress.warnings)
        for outcome in progress.latest:
            self._print_line(trial_facts(progress, outcome))
        if progress.goal is not None and progress.goal.id != self._goal:
            self._goal = progress.goal.id
            self._print_line({"event": "goal", **to_plain(progress.goal)})
        if progress.stopping and not self._stopping:
            self._stopping = True
            self._print_line({"event": "stopping", "running": progress.running})

    def say(self, text: str) -> None:
        """Print it."""
        self._print_line({"event": "stage", "text": text})

    def close(self) -> None:
        """Nothing to take down."""

    def _print_line(self, facts: Mapping[str, Any]) -> None:
        if self._stream is None:
            return
        try:
            print(json.dumps(facts), file=self._stream, flush=True)
        except BrokenPipeError:  # the reader is gone; hours of search are not to end for that
            self._stream = None


def trial_facts(progress: StudyProgress, outcome: Outcome) -> dict[str, Any]:
    """A trial or finalist that has ended, and how far the search is, in plain data."""
    return {
        "event": "trial" if outcome.member is None else "finalist",
        "id": _trial_number(outcome),
        "method": outcome.recipe.method.name,
        "status": outcome.status,
        progress.metric.name: outcome.metric,
        "flops_ratio": outcome.flops_ratio,
        **({} if outcome.latency_ms is None else {"latency_ms": round(outcome.latency_ms, 3)}),
        **({} if outcome.member is None else {"seed": outcome.recipe.seed}),
        "error": outcome.error,
        **_place_facts(outcome),
        "seconds": round(progress.seconds, 1),
        "ended": progress.ended,
        "running": progress.running,
        "eta": None if progress.eta is None else round(progress.eta, 1),
    }


def _small_warning(text: str) -> Text:
    return Text(text, style="yellow", overflow="ellipsis")


def _place_facts(outcome: Outcome) -> dict[str, Any]:
    """Where the trial ran last; no node where no worker took it up."""
    worker = WorkerName.parse(outcome.worker)
    return {"node": None if worker is None else worker.node, "gpus": [] if worker is None else list(worker.gpus)}


class Loading:
    """Says before the first trial what is done, and for how long by now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()

    def __rich__(self) -> Text:
        """As it is at the moment of drawing."""
        passed = duration_text(self._clock() - self._began)
        return Text(f"loading data and model, measuring the dense model   {passed}")


class LiveView:
    """A picture that is drawn over itself: trials, time left, the front so far, the last errors."""

    def __init__(self, console: Console) -> None:
        self._picture: list[RenderableType] = [Loading()]
        self._live = Live(self._picture[0], console=console, refresh_per_second=4, transient=True)
        self._live.start()
        self._failure: tuple[int, str] | None = None
        self._remark: str | None = None

    def update(self, progress: StudyProgress) -> None:
        """Draw the search as it is now."""
        for outcome in progress.latest:
            if outcome.status == "failed":
                self._failure = _trial_number(outcome), (outcome.error or "").splitlines()[0]
        bar = Padding(_budget_bar(progress), (0, 0, 1, 0))
        self._picture = [_counts_line(progress), bar, _front_so_far(progress)]
        if progress.goal is not None:
            self._picture.append(Text(progress.goal.sentence()))
        if progress.workers is not None:
            self._picture.append(Text(progress.workers))
        if progress.dashboard is not None:
            self._picture.append(Text(f"Ray's dashboard: {progress.dashboard}"))
        self._picture += [_small_warning(text) for text in progress.warnings]
        self._draw()

    def say(self, text: str) -> None:
        """Show it below the picture, which says so itself while the data are loaded."""
        if not isinstance(self._picture[0], Loading):
            self.remark(text)

    def remark(self, text: str | None) -> None:
        """Say something below the picture, or nothing any more."""
        self._remark = text
        self._draw()

    def close(self) -> None:
        """Take the picture down."""
        self._live.stop()

    def _draw(self) -> None:
        failure = None if self._failure is None else f"trial {self._failure[0]} failed: {self._failure[1]}"
        below = [_small_warning(text) for text in (failure, self._remark) if text]
        self._live.update(Group(*self._picture, *below))


def show(rows: Sequence[Mapping[str, Any]], *, title: str = "", numbers: Sequence[str] = ()) -> None:
    """Print rows with the same keys as a table under a title; nothing if there are none.

    Where a table would break words of its cells in two, each row is a block of lines instead.

    Args:
        numbers: columns that hold numbers as text, which stand to the right as numbers do.
    """
    if not rows:
        return
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False, soft_wrap=False)
    if title:
        console.print(title)
    least = {name: _longest_word([name, *(_cell_text(row[name]) for row in rows)]) for name in rows[0]}
    if sum(least.values()) + len(BETWEEN) * (len(least) - 1) + 2 > console.width:
        for row in rows:
            print(_as_block(row, console.width))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, value in rows[0].items():
        numeric = name in numbers or (isinstance(value, (int, float)) and not isinstance(value, bool))
        single = all(len(_cell_text(row[name]).split()) < 2 for row in rows)  # rich squeezes what it may wrap
        side = "right" if numeric else "left"
        table.add_column(name, justify=side, overflow="fold", min_width=least[name], no_wrap=single)
    for row in rows:
        table.add_row(*(_cell_text(value) for value in row.values()))
    console.print(table)


def _longest_word(texts: Sequence[str]) -> int:
    return max((len(word) for text in texts for word in text.split()), default=0)


def _as_block(row: Mapping[str, Any], width: int) -> str:
    """A row whose words have no room beside each other: its first cell, and below it the others by name."""
    first, *others = row.items()
    lines = [_cell_text(first[1])]
    for name, value in others:
        wrapper = textwrap.TextWrapper(width, initial_indent=" " * 4, subsequent_indent=" " * 8, break_long_words=False)
        lines += wrapper.wrap(f"{name}: {_cell_text(value)}")
    return "\n".join(lines)


def print_json(value: Any) -> None:
    """Print plain data as one line of JSON."""
    print(json.dumps(value, allow_nan=False, default=str), flush=True)


def front_table(study: Study) -> list[dict[str, Any]]:
    """The front of a study, one row per member, cheapest first."""
    return [
        {
            "trial": member.id,
            "method": member.recipe.method.name,
            study.metric.name: study.metric.shown(member.metric or 0.0),
            "flops": member.flops_ratio,
            "params": member.params_ratio,
            "activations": member.activations_ratio,
            **({} if member.latency_ms is None else {"latency": member.latency_ratio, "ms": member.latency_ms}),
        }
        for member in study.front
    ]


def _trial_number(outcome: Outcome) -> int:
    """The trial in the search that an outcome belongs to."""
    return outcome.id if outcome.member is None else outcome.member


def finalists_table(study: Study) -> list[dict[str, Any]]:
    """The finalists of a study, one row per member, cheapest first, the dense control last."""
    from autoprune.study import finalists

    metric, names = study.metric, {"flops_ratio": "flops", **FINALIST_NUMBERS}
    left_out = ("searched", "reproduced")  # 80 columns do not hold them; `reproduction_line` says them in short
    rows = [{key: value for key, value in row.items() if key not in left_out} for row in finalists.rows(study)]
    shown = {"against_dense": metric.shown_difference} | dict.fromkeys(("validation", "test"), metric.shown)
    shown |= dict.fromkeys(("validation_std", "test_std"), metric.shown)
    return [
        {
            names.get(key, key): shown[key](value) if key in shown and value is not None else value
            for key, value in row.items()
        }
        for row in rows
    ]


def reproduction_line(study: Study) -> str:
    """How far finalists end from what the search had found of them, in one sentence; empty without any."""
    from autoprune.study import finalists
    from autoprune.study.outcome import DENSE

    pruned = [row for row in finalists.rows(study) if row["method"] != DENSE and row["reproduced"] is not None]
    found = [row["reproduced"] for row in pruned]
    if not found:
        return ""
    low, high = (study.metric.shown_difference(value) for value in (min(found), max(found)))
    return f"on the validation split they end {low} to {high} from what the search had found"


def _cell_text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4f}" if math.isfinite(value) else str(value)
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def _counts_line(progress: StudyProgress) -> Text:
    if progress.stopping:
        trials = "1 trial" if progress.running == 1 else f"{progress.running} trials"
        return Text(f"stopping, waiting for {trials}   {duration_text(progress.seconds)}")
    text = f"{progress.done} trials done, {progress.running} running, {progress.stopped} stopped early"
    text += f", {progress.paused} waiting" if progress.paused else ""
    text += f", {progress.failed} failed" if progress.failed else ""
    left = "" if progress.eta is None else f"   about {duration_text(progress.eta)} left"
    return Text(f"{text}   {duration_text(progress.seconds)}{left}")


def _budget_bar(progress: StudyProgress) -> ProgressBar:
    """The used share of the budget; a pulse if it is unknown."""
    return ProgressBar(total=None if progress.used is None else 1.0, completed=progress.used or 0.0, width=60)


def _front_so_far(progress: StudyProgress) -> Table:
    metric, dense = progress.metric, progress.dense_metric
    beside = "" if dense is None else f" (dense: {metric.shown(dense)})"
    table = Table(title=f"front so far{beside}", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    costs = list(progress.front[0].costs) if progress.front else ["flops"]
    for name in ("trial", "method", metric.name, *(_HEADINGS.get(cost, cost) for cost in costs), ""):
        table.add_column(name, justify="left" if name in ("method", "") else "right")
    for point in _shown_points(progress.front):
        bar = "█" * min(round(20 * point.costs[costs[0]]), 20)
        shares = (f"{point.costs[cost]:.1%}" for cost in costs)
        table.add_row(str(point.id), point.method, metric.shown(point.metric), *shares, bar)
    return table


def _shown_points(points: Sequence[Any]) -> list[Any]:
    """At most `ROWS` of the points, the first and the last among them."""
    from autoprune.study.finalists import evenly_spread

    return evenly_spread(points, ROWS)


def duration_text(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
