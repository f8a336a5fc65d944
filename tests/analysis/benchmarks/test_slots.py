"""The arithmetic of busy slots by hand, the sleeper, and the page."""

import re
from dataclasses import replace
from pathlib import Path

import fakes
import pytest

from autoprune.analysis.benchmarks.slots import OpenSleeper, ProposalRow, SlotsRow, measure_proposals, page, shares
from autoprune.search.running.segments import TrialSegment, run_segment
from autoprune.search.running.study_clock import StudyClock
from autoprune.study.outcome import RunInterval

ROW = SlotsRow(
    slots=64, lanes=16, how="queue", sampler="tpe", seconds=5.0, trials=1280, busy=0.96125, steady=0.98, start=2.5,
    driver_ms=12.25, driver_mb=300.4, machine="a machine",
)  # fmt: skip


def ended(*legs):
    """A trial with these run intervals, each as (worker, start, end)."""
    intervals = [RunInterval(worker=worker, started=start, finished=end) for worker, start, end in legs]
    return replace(fakes.completed(fakes.proposal(1)), legs=tuple(intervals))


def test_shares_of_two_slots_by_hand():
    outcomes = [ended(("a", 3.0, 8.0), ("b", 5.0, 9.0)), ended(("a", 8.0, 13.0))]
    found = shares(outcomes, 2)

    assert found["busy"] == pytest.approx((5 + 4 + 5) / (2 * 10))
    assert found["steady"] == pytest.approx((3 + 4 + 3) / (2 * 6))  # from 5 to 11
    assert found["start"] == 2.0


def test_a_sleeper_takes_its_time_and_its_accuracy_falls_with_the_cost():
    clock = StudyClock(0.0)
    sleeper = OpenSleeper(0.05)(clock)

    def run(flops):
        segment = TrialSegment(proposal=fakes.proposal(3, flops=flops))
        return run_segment(sleeper, segment, lambda *_: True, clock, Path(), None, "w").outcome

    large, small = run(0.81), run(0.36)

    assert large.finished - large.started >= 0.05
    assert (large.flops_ratio, small.flops_ratio) == (0.81, 0.36)
    assert large.metric > small.metric


def test_the_page_has_a_line_for_each_row():
    proposals = [ProposalRow(sampler="gp", trials=100, ms=400.0, machine=""), *measure_proposals("random", [30, 70])]
    lines = page([ROW, replace(ROW, slots=256)], proposals).splitlines()
    rows = [line for line in lines if line.startswith("| ")]

    assert rows[1] == "| 64 | 16 | queue | tpe | 5 | 1280 | 96.1 % | 98.0 % | 2.5 | 12.2 | 300 |"
    assert rows[2].startswith("| 256 |")
    assert rows[3:5] == ["| sampler | at 30 trials | at 70 trials | at 100 trials |", "| gp |  |  | 400.0 ms, 2/s |"]
    assert re.fullmatch(r"\| random \| [\d.]+ ms, \d+/s \| [\d.]+ ms, \d+/s \|  \|", rows[5])
