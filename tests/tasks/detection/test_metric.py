"""Mean average precision, on cases that can be counted by hand."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from autoprune.errors import InputError
from autoprune.tasks.detection.metric import METRICS, MeanAveragePrecision, require_counter


def found(*objects: tuple[list[float], float, int]) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.tensor([box for box, _, _ in objects]).reshape(-1, 4),
        "scores": torch.tensor([score for _, score, _ in objects]),
        "labels": torch.tensor([label for _, _, label in objects], dtype=torch.int64),
    }


def wanted(*objects: tuple[list[float], int, int]) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.tensor([box for box, _, _ in objects]).reshape(-1, 4),
        "labels": torch.tensor([label for _, label, _ in objects], dtype=torch.int64),
        "iscrowd": torch.tensor([crowd for _, _, crowd in objects], dtype=torch.int64),
    }


def value(name: str, *images: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]) -> float:
    metric = MeanAveragePrecision(name)
    for one, other in images:
        metric.update([one], ([torch.zeros(3, 9, 9)], [other]))
    return metric.value()


BOX, FAR = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]


def test_all_right_is_one_and_all_wrong_is_none() -> None:
    assert value("map", (found((BOX, 0.9, 1)), wanted((BOX, 1, 0)))) == pytest.approx(1)
    assert value("map", (found((FAR, 0.9, 1)), wanted((BOX, 1, 0)))) == 0
    assert value("map", (found((BOX, 0.9, 2)), wanted((BOX, 1, 0)))) == 0
    assert value("map", (found(), wanted((BOX, 1, 0)))) == 0


def test_overlap_counts_at_ten_thresholds() -> None:
    near = [0.0, 0.0, 10.0, 8.1]  # 81 of 100 are shared: right at 0.50, 0.55, ..., 0.80

    assert value("map", (found((near, 0.9, 1)), wanted((BOX, 1, 0)))) == pytest.approx(7 / 10)
    assert value("map_50", (found((near, 0.9, 1)), wanted((BOX, 1, 0)))) == pytest.approx(1)
    assert value("map_75", (found((near, 0.9, 1)), wanted((BOX, 1, 0)))) == pytest.approx(1)


def test_classes_count_alike_whatever_their_number_of_objects() -> None:
    images = [(found((BOX, 0.9, 1), (FAR, 0.8, 1)), wanted((BOX, 1, 0), (FAR, 1, 0))), (found(), wanted((BOX, 7, 0)))]

    assert value("map", *images) == pytest.approx((1 + 0) / 2)


def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong() -> None:
    crowd = (found((FAR, 0.95, 1), (BOX, 0.9, 1)), wanted((BOX, 1, 0), (FAR, 1, 1)))
    wrong = (found((FAR, 0.95, 1), (BOX, 0.9, 1)), wanted((BOX, 1, 0)))

    assert value("map", crowd) == pytest.approx(1)
    assert value("map", wrong) == pytest.approx(1 / 2)


def test_more_than_a_hundred_detections_warn_of_nothing() -> None:
    many = found(*((FAR, 0.1, 1) for _ in range(101)), (BOX, 0.9, 1))

    assert value("map", (many, wanted((BOX, 1, 0)))) == pytest.approx(1)


def test_larger_is_better() -> None:
    assert {spec.direction for spec in METRICS.values()} == {"maximize"}


def test_a_missing_package_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(InputError, match=r"^task: faster-coco-eval not installed; run: pip install 'autoprune\[detect"):
        require_counter("task")
