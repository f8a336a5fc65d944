"""Times that were measured when a search had ended take the place of those of its trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autoprune.errors import InputError
from autoprune.recipe import MethodChoice, Recipe, Target
from autoprune.study.front_timings import (
    FrontTiming,
    read_timings,
    slower_than_hoped,
    time_in_words,
    with_times_of_members,
    with_timings,
)
from autoprune.study.outcome import Outcome


def completed(number: int, flops: float, accuracy: float, **fields: object) -> Outcome:
    """An outcome that has ended well."""
    recipe = Recipe(method=MethodChoice(name="l1"), target=Target(flops=flops))
    known = {"id": number, "status": "completed", "metric": accuracy, "flops_ratio": flops, **fields}
    return Outcome(recipe=recipe, **known)  # type: ignore[arg-type]


TIMING = FrontTiming(trial=3, ms=2.5, ratio=0.75, low=0.6875, high=0.8125, how="eager, float32, batch 1, cpu")


def test_the_last_line_of_a_trial_counts(tmp_path: Path) -> None:
    file = tmp_path / "timings.jsonl"
    lines = [TIMING, FrontTiming(trial=5, error="cannot be captured"), replace(TIMING, ratio=0.5)]
    file.write_text("".join(f"{line.to_json()}\n" for line in lines))

    assert read_timings(file) == {3: lines[2], 5: lines[1]}


def test_a_study_without_the_file_has_none(tmp_path: Path) -> None:
    assert read_timings(tmp_path / "timings.jsonl") == {}


def test_a_line_that_is_none_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "timings.jsonl").write_text('{"trial": 3, "speed": 1}\n')
    with pytest.raises(InputError, match=r"timings.jsonl:1: unknown key 'speed'"):
        read_timings(tmp_path / "timings.jsonl")


def test_outcomes_have_the_later_numbers_and_keep_theirs_where_nothing_was_timed() -> None:
    outcomes = [completed(n, 0.5, 0.75, latency_ratio=0.25, latency_ms=1.0) for n in (2, 3, 5)]
    found = with_timings(outcomes, {3: TIMING, 5: FrontTiming(trial=5, error="no")})

    assert (found[0], found[2]) == (outcomes[0], outcomes[2])
    assert (found[1].latency_ms, found[1].latency_ratio) == (2.5, 0.75)
    assert (found[1].latency_low, found[1].latency_high) == (0.6875, 0.8125)


def test_models_that_may_take_as_long_as_the_dense_one_are_named() -> None:
    fast = completed(1, 0.5, 0.75, latency_ratio=0.9, latency_ms=1.0, latency_low=0.8, latency_high=0.99)
    unsure = replace(fast, id=2, latency_high=1.0)
    slow = completed(3, 0.5, 0.75, latency_ratio=1.25, latency_ms=1.0)
    untimed, dense = completed(4, 0.5, 0.75), completed(5, 1.0, 0.75, latency_ratio=1.0, latency_ms=1.0)

    assert [outcome.id for outcome in slower_than_hoped([fast, unsure, slow, untimed, dense])] == [2, 3]


def test_a_finalist_has_the_time_of_its_member_if_it_has_its_widths() -> None:
    member = with_timings([completed(3, 0.5, 0.75, widths={"0": 5})], {3: TIMING})
    same, other, stranger = (
        completed(n, 0.5, 0.8125, widths={"0": width}, member=of) for n, width, of in ((0, 5, 3), (1, 6, 3), (2, 5, 4))
    )
    found = with_times_of_members([same, other, stranger], member)

    assert [one.latency_ratio for one in found] == [0.75, None, None]
    assert found[0].latency_high == 0.8125


def test_in_words() -> None:
    timed = with_timings([completed(3, 0.5, 0.75)], {3: TIMING})[0]

    assert time_in_words(timed) == "0.75 of the dense model's time (0.69 to 0.81)"
    assert time_in_words(replace(timed, latency_low=None)) == "0.75 of the dense model's time"
    assert time_in_words(completed(3, 0.5, 0.75)) == ""
