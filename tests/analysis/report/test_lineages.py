"""The tree of what front members go on from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autoprune.analysis.report import summary
from autoprune.analysis.report.front_figure import axes, front_figure
from autoprune.analysis.report.lineages import descent_lines, descent_of_front
from autoprune.analysis.report.page import write_report
from autoprune.study.outcome import Outcome, Proposal, Rung


def child(outcome: Outcome, parent: int | None, own: int = 1000, ancestors: int = 0) -> Outcome:
    recipe = replace(outcome.recipe, weights="trained" if parent is None else "front", parent=parent)
    rungs = (Rung(share=1.0, images=own, metric=outcome.accuracy or 0.0, seconds=1.0),)
    return replace(outcome, recipe=recipe, rungs=rungs, ancestor_images=ancestors)


def family(make_study: Any, build: Any) -> Any:
    """4 and 5 go on from 2, 7 trains 5 on, 3 has no parent; 2 is beaten by 3."""
    outcomes = [
        child(build.completed(2, 0.5, 0.80, widths={"a": 7}), None),
        child(build.completed(3, 0.45, 0.82, widths={"a": 6}), None),
        child(build.completed(4, 0.25, 0.70, widths={"a": 4}), 2, ancestors=1000),
        child(build.completed(5, 0.3, 0.75, widths={"a": 5}), 2, ancestors=1000),
        child(build.completed(7, 0.3, 0.76, widths={"a": 5}), 5, ancestors=2000),
    ]
    proposals = [Proposal(id=o.id, recipe=o.recipe, expected=0.71, distributions={"x": {}}) for o in outcomes]
    return replace(make_study(outcomes), proposals=tuple(proposals))


def test_the_tree_holds_members_and_their_ancestors(make_study: Any, build: Any) -> None:
    study = family(make_study, build)
    dense = study.config["dense"]["accuracy"]
    rows = [(o.outcome.id, o.depth, o.on_front, round(o.gained, 6), o.cut) for o in descent_of_front(study)]
    assert rows == [
        (2, 0, False, round(0.80 - dense, 6), True),
        (4, 1, True, -0.1, True),
        (5, 1, False, -0.05, True),
        (7, 2, True, 0.01, False),
        (3, 0, True, round(0.82 - dense, 6), True),
    ]
    assert [(parent.id, one.id) for parent, one in descent_lines(study)] == [(2, 4), (2, 5), (5, 7)]


def test_a_study_without_parents_has_no_tree(make_study: Any, build: Any) -> None:
    study = make_study([build.completed(2, 0.5, 0.8), build.completed(3, 0.3, 0.7)])
    assert descent_of_front(study) == []
    assert "lineages" not in {trace.name for trace in front_figure(study, axes(study)[0]).data}


def test_figure_page_and_methods_show_it(make_study: Any, build: Any, tmp_path: Any) -> None:
    study = family(make_study, build)
    line = next(trace for trace in front_figure(study, axes(study)[0]).data if trace.name == "lineages")
    assert list(line.x) == [0.5, 0.25, None, 0.5, 0.3, None, 0.3, 0.3, None]
    text = write_report(study, tmp_path / "report.html").read_text()
    assert 'id="lineages"' in text
    assert "trained on" in text
    assert "Over expected" in text
    (row,) = [row for row in summary.method_rows(study) if row.counts.get("completed")]
    # 0.09, 0.11, -0.01, 0.04, 0.05 above 0.71
    assert row.over_expected is not None
    assert abs(row.over_expected - 0.05) < 1e-9
