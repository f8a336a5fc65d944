"""Tables of times by width: what lies between and beyond what was measured, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoprune.engine.allocation.width_times import WidthCurve, WidthTimes, load_width_times, shipped_devices
from autoprune.errors import InputError


def curve(kind: str = "spatial", positions: int = 49, **us: float) -> WidthCurve:
    return WidthCurve(kind=kind, positions=positions, area=9, us={name.removeprefix("w"): t for name, t in us.items()})


def test_between_measured_widths_time_is_on_a_line() -> None:
    assert curve(w8=10.0, w16=30.0).time([8, 11, 16]).tolist() == [10.0, 17.5, 30.0]


def test_below_the_narrowest_it_is_that_of_the_narrowest() -> None:
    assert curve(w8=10.0, w16=30.0).time([3]).tolist() == [10.0]


def test_beyond_the_widest_it_goes_on_as_in_the_last_period() -> None:
    """Of 128 channels, 160 is like 96 and 130 like 66: times the square of their ratio; depthwise, the ratio."""
    wide = {"w66": 50.0, "w96": 20.0, "w128": 40.0}

    assert curve(**wide).time([160, 130]).tolist() == pytest.approx([20 * (160 / 96) ** 2, 50 * (130 / 66) ** 2])
    assert curve("depthwise", **wide).time([160]).tolist() == pytest.approx([20 * 160 / 96])


def test_a_layer_goes_by_the_curve_of_its_kind_and_of_the_nearest_size() -> None:
    times = WidthTimes(device="made up", curves=(curve(positions=49, w8=1), curve(positions=784, w8=2)))

    assert times.curve("spatial", 190).positions == 49  # 3.9 times as many, and 784 are 4.1 times 190
    assert times.curve("spatial", 200).positions == 784
    assert times.curve("depthwise", 10**6).positions == 784


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    times = WidthTimes(device="made up", curves=(curve(w8=1.5),))
    (tmp_path / "mine.json").write_text(json.dumps(times.to_dict()))

    assert load_width_times(str(tmp_path / "mine.json")) == times


@pytest.mark.parametrize("device", shipped_devices())
def test_shipped_tables_can_be_read_and_say_what_they_are(device: str) -> None:
    assert len(load_width_times(device).device) > 20


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (None, "cannot read"),
        ("{", "is no JSON"),
        ('{"device": "x", "curves": []}', "no curves"),
        ('{"device": "x"}', "missing key 'curves'"),
        ('{"device": "x", "curves": [{"kind": "odd", "positions": 1, "area": 1, "us": {"8": 1}}]}', "unknown value"),
        ('{"device": "x", "curves": [{"kind": "spatial", "positions": 1, "area": 1, "us": {"a": 1}}]}', "widths"),
        ('{"device": "x", "curves": [{"kind": "spatial", "positions": 1, "area": 1, "us": {"8": 0}}]}', "out of range"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str | None, error: str) -> None:
    file = tmp_path / "mine.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=error):
        load_width_times(str(file))


def test_an_unknown_device_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"h100-bf16"):
        load_width_times("h200")
