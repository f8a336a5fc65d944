"""What ending early saved, and whether rungs rank as the next one does; by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autoprune.analysis.report.summary import shares, summarise
from autoprune.analysis.report.trust import Saved, Trust, mean_ranks, saved, trust
from autoprune.study.outcome import Outcome, Rung, RunInterval


def climbed(
    build: Any, number: int, flops: float, *accuracies: float, control: bool = False, stage: bool = False
) -> Outcome:
    """Rungs at 0, 0.3 and the end of 5,000 images, 1 second to the first and 0.01 seconds an image."""
    places = [(0.0, 5000 if stage else 0, 1.0), (0.3, 1500, 16.0), (1.0, 5000, 51.0)]
    rungs = tuple(
        Rung(share=share, images=images, metric=accuracy, seconds=seconds)
        for (share, images, seconds), accuracy in zip(places, accuracies, strict=False)
    )
    if len(accuracies) == 3:
        return build.completed(number, flops, accuracies[-1], rungs=rungs, control=control)
    return replace(build.stopped(number, flops, accuracies[-1]), rungs=rungs)


def test_equal_flops_make_it_the_plain_rank_correlation(make_study: Any, build: Any) -> None:
    pairs = [(0.1, 0.3), (0.2, 0.2), (0.3, 0.5), (0.4, 0.4), (0.5, 0.7)]
    study = make_study([climbed(build, n, 0.5, *pair) for n, pair in enumerate(pairs, 1)])
    # ranks 1 2 3 4 5 and 2 1 4 3 5: 1 - 6 * 4 / (5 * 24)
    # A quarter of five is one, the last: at 0.5 it is above the middle, 0.3.
    assert trust(study) == [Trust(share=0.0, after=0.3, recipes=5, correlation=pytest.approx(0.8), best_kept=1.0)]


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    values = np.array([0.5, 0.25, 0.5, 0.75, 0.5, 0.25])

    assert mean_ranks(values).tolist() == [4.0, 1.5, 4.0, 6.0, 4.0, 1.5]


def test_what_rises_with_flops_alone_is_not_trusted(make_study: Any, build: Any) -> None:
    study = make_study([climbed(build, n, n / 10, n / 10, n / 9) for n in range(1, 8)])
    assert [found.correlation for found in trust(study)] == [0.0]


def test_few_recipes_controls_and_stages_say_nothing(make_study: Any, build: Any) -> None:
    few = [climbed(build, n, 0.5, n / 10, n / 10) for n in range(1, 5)]
    more = [climbed(build, 7, 0.5, 0.1, 0.1, 0.1, control=True), climbed(build, 8, 0.5, 0.1, 0.1, 0.1, stage=True)]
    assert trust(make_study([*few, *more])) == []


def test_what_was_saved_by_hand(make_study: Any, build: Any) -> None:
    stopped = [climbed(build, 1, 0.5, 0.1), climbed(build, 2, 0.5, 0.1, 0.2)]
    late = replace(climbed(build, 3, 0.5, 0.1, 0.2), error="its time was over")
    study = make_study([*stopped, late, climbed(build, 4, 0.5, 0.1, 0.2, 0.3)])

    images, used = 5000 + 3500, 0 + 1500 + 1500 + 5000
    assert saved(study) == Saved(
        recipes=2, images=images, hours=pytest.approx(85 / 3600), share=images / (images + used)
    )


def test_nothing_is_saved_where_no_recipe_lost(make_study: Any, build: Any) -> None:
    late = replace(climbed(build, 3, 0.5, 0.1, 0.2), error="its time was over")
    assert saved(make_study([late])) is None


def test_the_summary_says_what_was_saved_and_how_far_it_can_be_trusted(make_study: Any, build: Any) -> None:
    pairs = [(0.1, 0.3), (0.2, 0.2), (0.3, 0.5), (0.4, 0.4), (0.5, 0.7)]
    study = make_study([climbed(build, n, 0.5, *pair) for n, pair in enumerate(pairs, 1)])
    facts = " ".join(summarise(study).facts).replace("\N{NO-BREAK SPACE}", " ")

    # 5 recipes of 5,000 images stopped at 1,500; 0.01 seconds an image: 17,500 images, 175 seconds
    assert "Ending 5 recipes early saved 70 % of the training, 0.049 hours of a worker." in facts
    assert "(trust): 0 % to 30 %: +0.80 of 5." in facts


def test_a_worker_is_inside_trials_only_while_it_runs_their_parts(make_study: Any, build: Any) -> None:
    def legs(*parts: tuple[str, float, float]) -> tuple[RunInterval, ...]:
        return tuple(RunInterval(worker=worker, started=begin, finished=end) for worker, begin, end in parts)

    one = replace(build.completed(1, 0.5, 0.7), legs=legs(("a", 0.0, 3.0), ("b", 10.0, 17.0)))
    two = replace(build.completed(2, 0.4, 0.6), legs=legs(("a", 5.0, 11.0)))
    found = {share.worker: (share.trials, share.inside, share.span) for share in shares(make_study([one, two]))}

    assert found == {"a": (2, 9.0, 11.0), "b": (1, 7.0, 7.0)}
    assert (one.duration, two.duration) == (10.0, 6.0)
