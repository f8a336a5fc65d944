"""How a study stands beside its peers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autoprune.analysis.report.comparison import standings, verdicts
from autoprune.analysis.report.peers import Peer, PeerPoint, study_points


def peer(*points: tuple[float, float]) -> Peer:
    return Peer(name="theirs", points=tuple(PeerPoint(name=f"p{f:g}", metric=m, costs={"flops": f}) for f, m in points))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        # 1.96 * sqrt((0.9 * 0.1 + 0.85 * 0.15) / 5000), and with 0.895 and 0.93
        (0.85, "this study is better than theirs by 5.0 points, more than noise (±1.3 points)"),
        (0.895, "this study is better than theirs by 0.5 points, within noise (±1.2 points)"),
        (0.93, "this study is worse than theirs by 3.0 points, more than noise (±1.1 points)"),
        (0.9, "this study and theirs are equal"),
    ],
)
def test_in_a_sentence(make_study: Any, build: SimpleNamespace, metric: float, expected: str) -> None:
    study = make_study([build.completed(3, 0.45, 0.9), build.completed(5, 0.8, 0.95)])
    (told,) = verdicts(study, (peer((0.5, metric), (0.6, 0.99)),))

    value = f"{100 * metric:.1f} %"
    expected = f"At half the FLOPs {expected}: 90.0 % (trial 3, l1) against {value} (p0.5)."
    assert told.replace("\N{NO-BREAK SPACE}", " ") == expected


def test_without_a_model_at_half_the_cost(make_study: Any, build: SimpleNamespace) -> None:
    study = make_study([build.completed(5, 0.8, 0.95)])
    (told,) = verdicts(study, (peer((0.5, 0.9)),))

    assert told == "Beside theirs: this study has no model of at most half the FLOPs."


def test_in_rows(make_study: Any, build: SimpleNamespace) -> None:
    study = make_study([build.completed(3, 0.45, 0.9), build.completed(5, 0.8, 0.91)])
    again = Peer(name="again", points=study_points(study), study=study)
    own, same, theirs = standings(study, (again, peer((0.5, 0.85))))

    assert (own.name, own.trials, own.elapsed) == ("this study", 2, "42 s")
    # 0.55 * 0.9 + 0.2 * 0.01
    assert own.hypervolume == same.hypervolume == pytest.approx(0.497)
    assert (own.best, own.near) == (study_points(study)[0], study_points(study)[1])
    assert (theirs.trials, theirs.elapsed, theirs.hypervolume, theirs.near) == (None, "", None, None)
