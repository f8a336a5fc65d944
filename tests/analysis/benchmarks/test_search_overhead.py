"""The profile of a search: its arithmetic by hand, and its page."""

from __future__ import annotations

import cProfile
from dataclasses import replace
from typing import Any

import pytest

from autoprune.analysis.benchmarks.search_overhead import DRIVER, driver_times, page, spans
from autoprune.search.proposing.proposer import Proposer
from autoprune.study.outcome import RunInterval
from autoprune.study.space import Space


def test_every_second_of_every_worker_is_counted_once(build: Any) -> None:
    def leg(worker: str, started: float, finished: float) -> RunInterval:
        return RunInterval(worker=worker, started=started, finished=finished)

    one = replace(
        build.completed(1, 0.5, 0.75), legs=(leg("a", 3, 14), leg("b", 20, 27)), seconds={"cut": 2, "tune": 15}
    )
    two = replace(build.completed(2, 0.5, 0.75), legs=(leg("b", 5, 18),), seconds={"tune": 13})
    found = spans([one, two], -7.0, 31.0)

    assert (found.workers, found.wall, found.trials, found.median) == (2, 38.0, 3, 11)
    assert found.inside == {"cut": 2, "tune": 28}
    assert found.handing == 1  # 11 + 7 + 13 seconds of legs, 30 in stages
    assert found.between == 2  # on b, from 18 to 20
    assert found.before == 10 + 12
    assert found.after == 17 + 4
    total = sum(found.inside.values()) + found.handing + found.between + found.before + found.after
    assert total == found.workers * found.wall
    assert found.outside == pytest.approx(1 - 30 / 76)
    text = page(found, {"propose": (4, 0.02)}, 6400, 0.3)
    assert "| inside trials: tune | 28.0 | 36.8% |" in text
    assert "| propose | 4 | 0.02 | 5.0 |" in text


def test_the_drivers_functions_are_found_by_name() -> None:
    space = Space.read({"method": "l1", "target": {"flops": {"float": [0.2, 0.8]}}})
    with cProfile.Profile() as profile:
        proposer = Proposer(space)
        for _ in range(3):
            proposer.next()
    times = driver_times(profile)
    assert times["propose (Optuna)"][0] == 3
    assert set(times) < set(DRIVER)
