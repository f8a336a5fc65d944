"""Models of a front are timed in a process of the executor, in batches that may travel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest

from autoprune.errors import StudyError
from autoprune.search.running import front_timing
from autoprune.search.running.front_timing import time_front
from autoprune.search.running.in_process import InProcessExecutor
from autoprune.study.config import StudyConfig
from autoprune.study.folder import StudyFolder, load_study
from autoprune.study.front_timings import NOT_KEPT, FrontTiming


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study of three trials on the front whose models have 30 bytes, and one that is not."""
    folder, lines = StudyFolder(tmp_path), []
    folder.config.write_text("task: {}\n")
    for number, (flops, accuracy) in enumerate([(0.25, 0.5), (0.5, 0.625), (0.75, 0.75), (0.8125, 0.6875)]):
        lines.append(fakes.completed(fakes.proposal(number, flops=flops), accuracy).to_json())
        (folder.models / str(number)).mkdir(parents=True)
        (folder.models / str(number) / "model.safetensors").write_bytes(bytes(30))
    folder.outcomes.write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.fixture
def config() -> StudyConfig:
    return StudyConfig(task={}, space=fakes.bound_space())


class Counting(InProcessExecutor):
    """Has a batch timed without timing: a millisecond for each trial's number."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def call(self, job: Callable[[], Any]) -> Any:
        self.batches.append(list(job.models))  # type: ignore[attr-defined]
        return [FrontTiming(trial=n, ms=float(n), ratio=0.5, low=0.5, high=0.5) for n in self.batches[-1]]


def test_members_are_timed_once_and_a_search_that_goes_on_times_new_ones(
    folder: StudyFolder, config: StudyConfig
) -> None:
    executor = Counting()
    time_front(executor, folder, config, None)  # type: ignore[arg-type]
    better = fakes.completed(fakes.proposal(4, flops=0.8125), 0.875)
    with folder.outcomes.open("a") as log:
        log.write(better.to_json() + "\n")
    (folder.models / "4").mkdir()
    (folder.models / "4" / "model.safetensors").write_bytes(bytes(30))
    time_front(executor, folder, config, None)  # type: ignore[arg-type]

    assert executor.batches == [[0, 1, 2], [4]]
    assert [outcome.latency_ms for outcome in load_study(folder.path).outcomes] == [0.0, 1.0, 2.0, None, 4.0]


def test_no_more_travels_at_once_than_may(
    folder: StudyFolder, config: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front_timing, "AT_ONCE", 60)
    executor = Counting()
    time_front(executor, folder, config, None)  # type: ignore[arg-type]

    assert executor.batches == [[0, 1], [2]]


def test_a_process_that_dies_is_noted_and_ends_nothing(folder: StudyFolder, config: StudyConfig) -> None:
    class Dying(Counting):
        def call(self, job: Callable[[], Any]) -> Any:
            raise StudyError("a process beside the trials has died: node lost")

    time_front(Dying(), folder, config, None)  # type: ignore[arg-type]
    study = load_study(folder.path)

    assert [timing.error for timing in study.timings.values()] == [
        "a process beside the trials has died: node lost"
    ] * 3
    assert all(outcome.latency_ms is None for outcome in study.outcomes)


def test_members_that_look_no_faster_beside_other_trials_are_timed_alone(
    folder: StudyFolder, config: StudyConfig
) -> None:
    folder.config.write_text("task: {}\nobjectives: [accuracy, latency]\n")
    wide = {"latency_low": 0.1, "latency_high": 0.9, "latency_ms": 1.0}
    rows = [(n, 0.5 + n / 8, 0.25 + n / 8) for n in range(3)]
    folder.outcomes.write_text(
        "".join(
            fakes.completed(fakes.proposal(n), accuracy, latency_ratio=ratio, **wide).to_json() + "\n"
            for n, accuracy, ratio in rows
        )
    )

    class Alone(Counting):
        def call(self, job: Callable[[], Any]) -> Any:
            times = [(timing, 0.25 + timing.trial / 8) for timing in super().call(job)]
            return [replace(timing, ratio=ratio, low=ratio, high=ratio) for timing, ratio in times]

    before = [member.id for member in load_study(folder.path).front]
    time_front(Alone(), folder, config, None)  # type: ignore[arg-type]

    assert before == [2]
    assert [member.id for member in load_study(folder.path).front] == [0, 1, 2]


def test_who_comes_onto_the_front_by_the_times_of_others_is_timed_too_or_off_it_again(
    folder: StudyFolder, config: StudyConfig
) -> None:
    """Of the first front, 0 and 1, the second is slow: 3 comes in, whose model is gone, then 2, which is slow too."""
    folder.config.write_text("task: {}\nobjectives: [accuracy, latency]\n")
    rows = [(0, 0.5, 0.25), (1, 0.625, 0.375), (2, 0.5625, 0.5), (3, 0.59375, 0.4375)]
    folder.outcomes.write_text(
        "".join(
            fakes.completed(fakes.proposal(n), accuracy, latency_ratio=ratio, latency_ms=1.0).to_json() + "\n"
            for n, accuracy, ratio in rows
        )
    )
    (folder.models / "3" / "model.safetensors").unlink()
    (folder.models / "3").rmdir()

    class Slow(Counting):
        def call(self, job: Callable[[], Any]) -> Any:
            times = [(timing, 0.25 if timing.trial == 0 else 0.75) for timing in super().call(job)]
            return [replace(timing, ratio=ratio, low=ratio, high=ratio) for timing, ratio in times]

    executor = Slow()
    time_front(executor, folder, config, None)  # type: ignore[arg-type]
    study = load_study(folder.path)

    assert executor.batches == [[0, 1], [2]]
    assert study.timings[3].error == NOT_KEPT
    assert [member.id for member in study.front] == [0, 1]


def test_milliseconds_are_in_proportion_to_ratios() -> None:
    """The dense model took 4, 8 and 6 ms while they were timed: 6 is the median."""
    rows = [
        FrontTiming(trial=n, ms=ratio * dense, ratio=ratio)
        for n, (ratio, dense) in enumerate([(0.5, 4), (0.25, 8), (0.75, 6)])
    ]
    found = front_timing._on_one_scale([*rows, FrontTiming(trial=9, error="no")])

    assert [timing.ms for timing in found] == [3.0, 1.5, 4.5, 0.0]
