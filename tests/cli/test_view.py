"""A search as it is shown: a picture on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from commands import OUTCOMES, Capture
from rich.console import Console
from told_progress import progress

from autoprune.cli import view
from autoprune.study.outcome import Outcome
from autoprune.study.progress import GoalProgress


def test_elsewhere_every_trial_is_a_line_of_json() -> None:
    stream = io.StringIO()
    shown = view.open_view(stream)
    shown.update(progress(OUTCOMES[0], OUTCOMES[1]))
    shown.update(progress())
    shown.close()

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["id"] for line in lines] == [3, 5]
    assert {"event": "trial", "accuracy": 0.89, "flops_ratio": 0.47, "ended": 9}.items() <= lines[1].items()


def test_a_line_says_where_the_trial_ran() -> None:
    stream = io.StringIO()
    workers = ("node3:17:gpu0+2", "node3:17", "")
    view.JsonView(stream).update(progress(*(replace(OUTCOMES[0], worker=worker) for worker in workers)))
    shown = [json.loads(line) for line in stream.getvalue().splitlines()]

    assert [(line["node"], line["gpus"]) for line in shown] == [("node3", ["0", "2"]), ("node3", []), (None, [])]


def test_the_workers_are_named_once_before_the_trials() -> None:
    stream = io.StringIO()
    shown = view.JsonView(stream)
    for outcome in OUTCOMES[:2]:
        shown.update(progress(outcome, workers="65 workers that stay"))
    first, *rest = [json.loads(line) for line in stream.getvalue().splitlines()]

    assert first == {"event": "workers", "text": "65 workers that stay"}
    assert {line["event"] for line in rest} == {"trial"}


def test_that_the_user_has_ended_it_is_said_once_and_at_once() -> None:
    stream, running = io.StringIO(), {"running": 2, "stopping": True}
    shown = view.JsonView(stream)
    for changes in ({}, running, running):
        shown.update(progress(**changes))

    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [{"event": "stopping", "running": 2}]
    assert view._counts_line(progress(**running)).plain.startswith("stopping, waiting for 2 trials")
    assert view._counts_line(progress(running=1, stopping=True)).plain.startswith("stopping, waiting for 1 trial ")


def test_loading_says_for_how_long_by_now() -> None:
    now = iter((100.0, 100.4, 171.0))
    loading = view.Loading(lambda: next(now))

    assert [loading.__rich__().plain.rpartition("   ")[2] for _ in range(2)] == ["0 s", "1 min 11 s"]


@pytest.mark.parametrize("width", [32, 44, 60, 100])
def test_no_table_breaks_a_word_in_two(width: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    rows = [
        {"space": "cifar10_resnet20_regularised", "methods": "l1 channel_pruning group_fisher " * 3, "trials": 300},
        {"space": "digits_demo", "methods": "l1", "trials": None},
    ]
    monkeypatch.setattr(view, "PIPE_WIDTH", width)
    view.show(rows)
    lines = capsys.readouterr().out.splitlines()

    assert max(map(len, lines)) <= width
    words = {word for line in lines for word in line.split()}
    assert {"cifar10_resnet20_regularised", "channel_pruning", "group_fisher", "300"} <= words


def test_the_dashboard_is_named_once_before_the_trials() -> None:
    stream = io.StringIO()
    shown = view.JsonView(stream)
    for outcome in OUTCOMES[:2]:
        shown.update(progress(outcome, dashboard="http://127.0.0.1:8265"))
    first, *rest = [json.loads(line) for line in stream.getvalue().splitlines()]

    assert first == {"event": "dashboard", "url": "http://127.0.0.1:8265"}
    assert [line["event"] for line in rest] == ["trial", "trial"]


def test_what_goes_wrong_beside_the_search_is_said_once() -> None:
    stream = io.StringIO()
    shown = view.JsonView(stream)
    for warnings in ((), ("one",), ("one",), ("one", "two")):
        shown.update(progress(warnings=warnings))

    assert [json.loads(line)["text"] for line in stream.getvalue().splitlines()] == ["one", "two"]


def test_a_search_outlives_the_reader_of_its_lines() -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    shown = view.JsonView(Gone())
    shown.update(progress(OUTCOMES[0]))
    shown.update(progress(OUTCOMES[1]))


def test_on_a_terminal_it_is_a_picture() -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40)
    shown = view.LiveView(console)
    failed = Outcome(id=8, recipe=OUTCOMES[0].recipe, status="failed", error="out of memory")
    shown.update(progress(failed, dashboard="http://head:8265", warnings=("tracker x: gone",)))
    shown._live.refresh()
    shown.close()
    text = console.file.getvalue()  # type: ignore[attr-defined]

    for part in (
        "2 trials done, 1 running, 3 stopped early, 7 waiting, 4 failed",
        "about 1 h 01 min left",
        "dense: 97.00 %",
        "60.0%",
        "Ray's dashboard: http://head:8265",
        "tracker x: gone",
    ):
        assert part in text
    assert "trial 8 failed: out of memory" in text
    assert text.count("l1") <= view.ROWS * 2  # the front has 30 members; the picture has room for some


def test_what_is_looked_for_is_said_whenever_another_model_is_it() -> None:
    def goal(number: int | None, idle: int) -> GoalProgress:
        cost = None if number is None else 0.41
        return GoalProgress(text="within 1 point", cost_name="flops", id=number, cost=cost, idle=idle, patience=20)

    stream = io.StringIO()
    shown = view.JsonView(stream)
    for found in (goal(None, 0), goal(17, 0), goal(17, 5), goal(23, 0)):
        shown.update(progress(goal=found))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]

    assert [(line["event"], line["id"], line["idle"]) for line in lines] == [("goal", 17, 0), ("goal", 23, 0)]


def test_the_picture_says_what_is_looked_for() -> None:
    goal = GoalProgress(text="within 1 point", cost_name="flops", id=17, cost=0.41, idle=5, patience=20)
    stream = io.StringIO()
    console = Console(file=stream, width=100)
    shown = view.LiveView(console)
    shown.update(progress(goal=goal))
    shown.close()

    console.print(*shown._picture)
    assert "goal: within 1 point; trial 17 with 41.0% of the flops, no cheaper for 5 of 20 trials" in stream.getvalue()
