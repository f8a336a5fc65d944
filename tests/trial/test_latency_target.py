"""Targets of latency, on a clock by which a model takes what its parameters are of the dense model's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from digits import TASK
from torch import nn

from autoprune import methods
from autoprune.errors import InputError, TargetError
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training
from autoprune.study.constraints import Latency
from autoprune.tasks import load_task
from autoprune.timing.pairs import Timing
from autoprune.timing.random_models import MODELS
from autoprune.training.runtime import Runtime
from autoprune.trial.cache import FolderStore, StudyCache
from autoprune.trial.latency_target import FLOPS_NOTE, NEAR, TIMINGS, LatencyAim, aimed_again, met_by_flops
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState


@pytest.fixture(scope="module")
def loaded(data_folder: Path) -> SharedState:
    assert data_folder.is_dir()
    return SharedState.of(load_task(TASK), Runtime(threads=1))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture
def timed(loaded: SharedState, monkeypatch: pytest.MonkeyPatch) -> list[Latency]:
    """How models were timed; each takes its share of the dense model's parameters."""
    asked: list[Latency] = []

    def time(model: nn.Module, latency: Latency) -> Timing:
        asked.append(latency)
        ratio = count(model) / count(loaded.model)
        return Timing(ms=ratio, ratio=ratio, low=ratio, high=ratio)

    monkeypatch.setattr(loaded.timer, "time", time)
    return asked


def recipe(target: Target, **allocation: object) -> Recipe:
    return Recipe(
        method=MethodChoice(name="l1"),
        target=target,
        allocation=Allocation(**{"name": "uniform", **allocation}),  # type: ignore[arg-type]
        training=Training(images=64, batch_size=64),
    )


@pytest.mark.parametrize("name", ["uniform", "global"])
@pytest.mark.parametrize("limit", [0.3, 0.65])
def test_the_most_flops_at_which_a_model_takes_no_longer(
    loaded: SharedState, timed: list[Latency], name: str, limit: float
) -> None:
    latency = Latency(batch=3)
    found = met_by_flops(recipe(Target(latency=limit), name=name), loaded, latency).target
    assert found.flops is not None
    times = [
        run(recipe(Target(flops=ratio)), loaded, latency=latency).outcome.latency_ratio or 1.0
        for ratio in (found.flops, found.flops + 4 * NEAR)
    ]

    assert found.latency is None
    assert times[0] <= limit + NEAR
    assert times[1] > limit
    assert set(timed) == {latency}


def test_other_targets_stay_and_the_lower_flops_count(loaded: SharedState, timed: list[Latency]) -> None:
    plain = recipe(Target(flops=0.5, params=0.7))
    alone = met_by_flops(recipe(Target(latency=0.65)), loaded, None).target.flops
    both = met_by_flops(recipe(Target(latency=0.65, flops=0.25, params=0.7)), loaded, None).target

    assert met_by_flops(plain, loaded, None) is plain
    assert alone is not None
    assert alone > 0.25
    assert both == Target(flops=0.25, params=0.7)


def test_what_no_model_reaches_is_refused_with_what_one_does(loaded: SharedState, timed: list[Latency]) -> None:
    asked = recipe(Target(latency=0.2), max_ratio=0.3)
    with pytest.raises(TargetError, match=r"target: latency: 0.2 cannot be reached: a model of \d+% .*; allowed: lat"):
        met_by_flops(asked, loaded, None)


def test_a_trial_aims_at_them_notes_them_and_can_be_run_again(loaded: SharedState, timed: list[Latency]) -> None:
    asked = recipe(Target(latency=0.5))
    outcome = run(asked, loaded, latency=Latency()).outcome
    flops = outcome.notes[FLOPS_NOTE]

    assert (outcome.status, outcome.recipe) == ("completed", asked)
    assert outcome.latency_ratio == pytest.approx(0.5, abs=0.03)
    assert outcome.flops_ratio == pytest.approx(flops, abs=0.01)
    assert aimed_again(asked, outcome.notes) == replace(asked, target=Target(flops=flops))
    assert aimed_again(asked, {}) is asked


class TestPredicted:
    """Trials of a study bisect by a prediction, and time what it finds."""

    @pytest.fixture
    def shared(
        self, loaded: SharedState, timed: list[Latency], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> SharedState:
        """A study's, where a prediction is fitted to a clock that is a fifth too slow."""
        roughly: list[nn.Module] = []

        def measure(model: nn.Module, latency: Latency) -> float:
            roughly.append(model)
            return min(1.0, 1.2 * count(model) / count(loaded.model))

        monkeypatch.setattr(loaded.timer, "roughly", measure)
        self.roughly = roughly
        return replace(loaded, cache=StudyCache(FolderStore(tmp_path)))

    @pytest.mark.parametrize("limit", [0.3, 0.65])
    def test_few_models_are_timed_and_the_limit_is_kept(
        self, shared: SharedState, timed: list[Latency], limit: float
    ) -> None:
        found = met_by_flops(recipe(Target(latency=limit)), shared, None).target.flops or 0.0
        timings = len(timed)
        time = run(recipe(Target(flops=found)), shared, latency=Latency()).outcome.latency_ratio or 1.0

        assert timings <= TIMINGS + 1
        assert limit * 0.9 <= time <= limit

    @pytest.mark.parametrize("name", ["uniform", "global"])
    @pytest.mark.parametrize("limit", [0.3, 0.5, 0.65])
    def test_a_cut_by_scores_takes_what_was_asked_for(
        self, shared: SharedState, timed: list[Latency], name: str, limit: float
    ) -> None:
        asked = recipe(Target(latency=limit), name=name)
        outcome = run(asked, shared, latency=Latency()).outcome
        again = run(aimed_again(asked, outcome.notes), shared, latency=Latency()).outcome

        assert outcome.error is None
        assert limit * 0.92 <= (outcome.latency_ratio or 1) <= limit * 1.02
        assert again.widths == outcome.widths

    @pytest.mark.parametrize("limit", [0.35, 0.5, 0.65, 0.8])
    def test_coarse_widths_end_at_the_nearest_below_and_the_note_says_of_which_flops(
        self, shared: SharedState, timed: list[Latency], limit: float
    ) -> None:
        asked = recipe(Target(latency=limit), name="global", round_to=8)
        outcome = run(asked, shared, latency=Latency()).outcome
        again = run(aimed_again(asked, outcome.notes), shared, latency=Latency()).outcome

        assert outcome.error is None
        assert (outcome.latency_ratio or 1) <= limit * 1.02
        assert again.widths == outcome.widths

    @pytest.mark.parametrize(("method", "held"), [("l1", True), ("bn_scale", True), ("asfp", False)])
    def test_cuts_of_methods_that_aimed_at_nothing_before_are_held_to_the_time(
        self, shared: SharedState, timed: list[Latency], method: str, held: bool
    ) -> None:
        asked = replace(recipe(Target(latency=0.5)), method=MethodChoice(name=method))
        aim = LatencyAim.of(asked, 0.4, methods.build(asked.method), shared, None)

        assert (aim is not None) is held

    def test_a_limit_of_flops_beside_it_holds(self, shared: SharedState, timed: list[Latency]) -> None:
        outcome = run(recipe(Target(latency=0.65, flops=0.2), name="global"), shared, latency=Latency()).outcome

        assert (outcome.flops_ratio or 1) <= 0.21

    def test_all_trials_share_one_prediction(self, shared: SharedState, timed: list[Latency]) -> None:
        met_by_flops(recipe(Target(latency=0.5)), shared, None)
        again = replace(shared, cache=StudyCache(shared.cache.store))
        met_by_flops(recipe(Target(latency=0.4)), again, None)

        assert len(self.roughly) == MODELS

    def test_another_way_to_time_and_other_widths_have_their_own(
        self, shared: SharedState, timed: list[Latency]
    ) -> None:
        met_by_flops(recipe(Target(latency=0.5)), shared, None)
        met_by_flops(recipe(Target(latency=0.5)), shared, Latency(batch=3))
        met_by_flops(recipe(Target(latency=0.5), round_to=2), shared, None)
        met_by_flops(recipe(Target(latency=0.5), name="global"), shared, None)

        assert len(self.roughly) == 3 * MODELS


def test_the_engine_has_no_latency(loaded: SharedState) -> None:
    with pytest.raises(InputError, match=r"target.latency: a graph has no latency; allowed: flops, params; latency"):
        loaded.check_reachable(Target(latency=0.5))
