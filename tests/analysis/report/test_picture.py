"""The static picture of a front."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rmse_study

from autoprune.analysis.report import picture
from autoprune.analysis.report.front_figure import metric_ranges
from autoprune.errors import InputError
from autoprune.study import pareto
from autoprune.study.folder import Study, load_study

SVG = "{http://www.w3.org/2000/svg}"


def test_trials_and_front_are_drawn(study: Study, tmp_path: Path) -> None:
    path = picture.write_picture(study, tmp_path / "front.svg")
    root = ET.parse(path).getroot()
    members = pareto.front(study.outcomes)
    low = metric_ranges(study, members)["front"][0]
    drawn = [outcome for outcome in pareto.candidates(study.outcomes) if (outcome.accuracy or 0.0) >= low]
    circles = root.findall(f"{SVG}circle")
    texts = [text.text for text in root.findall(f"{SVG}text")]

    assert sum(circle.get("class") == "ring" for circle in circles) == len(members)
    assert len([circle for circle in circles if circle.get("r") != "5"]) == len(drawn)
    assert {"resnet20 on cifar10", "dense 91.7\N{NO-BREAK SPACE}%", "l1", "random", "100 %"} <= set(texts)


def test_a_member_lies_where_it_should(make_study: Any, build: SimpleNamespace, tmp_path: Path) -> None:
    path = picture.write_picture(make_study([build.completed(3, 0.52, 0.917)]), tmp_path / "front.svg")
    mark = ET.parse(path).getroot().find(f"{SVG}circle")

    assert mark is not None
    assert (mark.get("cx"), mark.get("cy")) == (
        "386.0",
        "222.0",
    )  # half of 72 to 700; the dense accuracy is in the middle


def test_an_empty_study(make_study: Any, tmp_path: Path) -> None:
    root = ET.parse(picture.write_picture(make_study([]), tmp_path / "front.svg")).getroot()

    assert root.findall(f"{SVG}circle") == []
    assert root.findall(f"{SVG}path") == []


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.81, 0.93, [0.82, 0.84, 0.86, 0.88, 0.9, 0.92]), (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])],
)
def test_round_values(low: float, high: float, expected: list[float]) -> None:
    assert picture._round_values(low, high) == expected


def test_only_svg(study: Study, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"unknown kind of picture .*front.png.*allowed: a file name that ends in .svg"
    ):
        picture.write_picture(study, tmp_path / "front.png")


class TestMain:
    def test_writes_and_says_where(self, study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "front.svg"

        assert picture.main([str(study.folder.path), "--to", str(path)]) == 0
        assert capsys.readouterr().out == f"{path}\n"
        assert path.read_text().startswith("<svg")

    def test_no_study(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert picture.main([str(tmp_path), "--to", str(tmp_path / "front.svg")]) == 2
        assert capsys.readouterr().err.startswith("error: no study in")
        assert list(tmp_path.iterdir()) == []


def test_a_metric_to_minimise_says_so_at_its_axis(tmp_path: Path) -> None:
    study = load_study(rmse_study.write(tmp_path / "trees").path)
    root = ET.parse(picture.write_picture(study, tmp_path / "front.svg")).getroot()
    texts = {str(text.text) for text in root.findall(f"{SVG}text")}

    assert {"Validation rmse (cm, smaller is better)", "dense 1.4\N{NO-BREAK SPACE}cm", "2", "3"} <= texts
    assert len([circle for circle in root.findall(f"{SVG}circle") if circle.get("class") == "ring"]) == 3
