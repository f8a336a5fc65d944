"""What a study is laid beside: folders and tables, and what is wrong with them in one line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rmse_study

from autoprune.analysis.report.peers import PeerPoint, best_within, read_peer
from autoprune.errors import InputError
from autoprune.study.metric import ACCURACY


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "published.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_of_published_points(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        'name,accuracy,flops_ratio,latency_ms,source\nA,0.91,0.5,,"B, table 2"\n,0.9,0.4,3.5,\n',
    )
    peer = read_peer(path, ACCURACY)

    assert (peer.name, peer.study) == ("published", None)
    assert peer.points == (
        PeerPoint(name="A", metric=0.91, costs={"flops": 0.5}, source="B, table 2"),
        PeerPoint(name="unnamed", metric=0.9, costs={"flops": 0.4, "latency_ms": 3.5}),
    )


def test_the_front_of_another_search_as_it_writes_it(make_study: Any, build: SimpleNamespace, tmp_path: Path) -> None:
    from autoprune.analysis.report.frames import write_pareto_csv

    study = make_study([build.completed(3, 0.4, 0.8), build.completed(5, 0.7, 0.9, "taylor")])
    peer = read_peer(write_pareto_csv(study, tmp_path / "pareto.csv"), ACCURACY)

    assert [(point.name, point.metric, point.costs["flops"]) for point in peer.points] == [
        ("l1", 0.8, 0.4),
        ("taylor", 0.9, 0.7),
    ]


def test_a_study(make_study: Any, build: SimpleNamespace) -> None:
    study = make_study([build.completed(3, 0.4, 0.8), build.completed(5, 0.5, 0.7)])
    (point,) = read_peer(study.folder.path, ACCURACY).points

    assert (point.name, point.method, point.metric) == ("trial 3, l1", "l1", 0.8)
    assert point.costs["flops absolute"] == pytest.approx(0.4 * 81_600_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", r"published\.csv: columns none; allowed: accuracy and at least one of flops_ratio, params_ratio"),
        ("name,accuracy\nA,0.9\n", r"columns name, accuracy; allowed"),
        ("accuracy,flops_ratio\nmuch,0.5\n", r"published\.csv:2: accuracy: 'much' is no number"),
        ("accuracy,flops_ratio\nnan,0.5\n", r"published\.csv:2: accuracy: 'nan' is no number"),
        ("accuracy,flops_ratio\n0.9,0.4\n91.2,0.5\n", r":3: accuracy: 91\.2 is out of range; allowed: from 0 to 1"),
        ("accuracy,flops_ratio\n0.9,\n", r"published\.csv:2: no cost"),
        ("accuracy,flops_ratio\n0.9,-0.5\n", r"published\.csv:2: -0\.5 is out of range; allowed: 0 or more"),
    ],
)  # fmt: skip
def test_a_table_that_is_wrong(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        read_peer(table(tmp_path, text), ACCURACY)


def test_bytes_are_no_table(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_bytes(b"accuracy,flops\n\xff\xfe")

    with pytest.raises(InputError, match="not a table"):
        read_peer(path, ACCURACY)


def test_what_is_not_there_or_of_another_metric(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file or directory"):
        read_peer(tmp_path / "absent.csv", ACCURACY)
    with pytest.raises(InputError, match="no study in"):
        read_peer(tmp_path / "absent", ACCURACY)
    trees = rmse_study.write(tmp_path / "trees")
    with pytest.raises(InputError, match="a study of rmse, minimized; allowed: one of accuracy, maximized"):
        read_peer(trees.path, ACCURACY)


def test_the_best_within_a_cost() -> None:
    points = [
        PeerPoint(name=str(n), metric=m, costs=c) for n, m, c in ((1, 0.9, {"flops": 0.6}), (2, 0.8, {"flops": 0.5}))
    ]
    points.append(PeerPoint(name="3", metric=0.95, costs={"params": 0.1}))

    best = best_within(points, "flops", 0.5, ACCURACY)
    assert best is not None
    assert best.name == "2"
    assert best_within(points, "flops", 0.4, ACCURACY) is None
