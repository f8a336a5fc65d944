"""Outcomes and proposals survive their line of JSON, and nothing else passes for one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.errors import InputError
from autoprune.recipe import MethodChoice, Recipe, Target
from autoprune.study.metric import ACCURACY, RESERVED, MetricSpec
from autoprune.study.outcome import STATUSES, Outcome, Proposal, RecipeReader, Rung, RunInterval

RECIPE = Recipe(method=MethodChoice(name="bn_scale", params={"penalty": 1e-4}), target=Target(flops=0.3))
share = st.floats(0, 1)
rungs = st.builds(Rung, share=share, images=st.integers(0, 10**9), metric=share, seconds=share)
outcomes = st.builds(
    Outcome,
    id=st.integers(0, 999),
    recipe=st.just(RECIPE),
    status=st.sampled_from(STATUSES),
    metric=st.none() | share,
    flops_ratio=st.none() | share,
    rungs=st.lists(
        st.builds(Rung, share=share, images=st.integers(0, 10**9), metric=share, seconds=share), max_size=3
    ).map(tuple),
    widths=st.dictionaries(st.text(max_size=5), st.integers(1, 99), max_size=3),
    seconds=st.dictionaries(st.text(max_size=5), share, max_size=3),
    error=st.none() | st.text(),
)


@given(outcomes)
def test_an_outcome_is_one_line_and_survives_it(outcome: Outcome) -> None:
    line = outcome.to_json()

    assert "\n" not in line
    assert outcome == Outcome.from_json(line)


def test_a_proposal_survives_its_line() -> None:
    proposal = Proposal(id=7, recipe=RECIPE, params={"a": 0.1}, distributions={"a": "{}"}, proposed=1.5, control=True)

    assert proposal == Proposal.from_json(proposal.to_json())


def test_nan_never_reaches_a_log() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        Outcome(id=0, recipe=RECIPE, status="completed", metric=float("nan")).to_json()


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "log:3: not JSON"), ("[1]", "log:3: expected an object"), ('{"id": 1}', "log:3.recipe: expected")],
)
def test_a_line_that_is_something_else_is_an_error_with_its_place(line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Outcome.from_json(line, "log:3")


def test_a_trial_without_legs_ran_from_start_to_end() -> None:
    outcome = Outcome(id=0, recipe=RECIPE, status="completed", worker="a", started=3.0, finished=10.0)
    legs = (RunInterval(worker="a", started=3.0, finished=5.0), RunInterval(worker="b", started=7.0, finished=10.0))
    paused = Outcome(id=0, recipe=RECIPE, status="completed", worker="b", started=3.0, finished=10.0, legs=legs)

    assert outcome.run_intervals == (RunInterval(worker="a", started=3.0, finished=10.0),)
    assert (outcome.duration, paused.duration) == (7.0, 5.0)
    assert paused.run_intervals == legs


class TestRecipeReader:
    def test_a_recipe_that_was_read_is_not_read_again(self) -> None:
        read, plain = RecipeReader(), RECIPE.to_dict()

        assert read(plain, "log:1.recipe") == RECIPE
        assert read(json.loads(json.dumps(plain)), "log:2.recipe") is read(plain, "log:1.recipe")

    def test_equal_numbers_of_other_kinds_are_other_recipes(self) -> None:
        read, one = RecipeReader(), {"method": {"name": "l1", "power": 1}}

        assert [repr(read(one, "")), repr(read({"method": {"name": "l1", "power": 1.0}}, ""))] == [
            repr(Recipe(method=MethodChoice(name="l1", params={"power": 1}))),
            repr(Recipe(method=MethodChoice(name="l1", params={"power": 1.0}))),
        ]

    def test_what_is_wrong_is_said_with_each_place(self) -> None:
        read = RecipeReader()

        for place in ("log:3.recipe", "log:5.recipe"):
            with pytest.raises(InputError, match=rf"{place}.seed: expected a whole number, found 'x'"):
                read({"method": {"name": "l1"}, "seed": "x"}, place)


RMSE = MetricSpec(name="rmse", direction="minimize", best=0.0, worst=None)


class TestNameOfTheMetric:
    measured = Outcome(
        id=3,
        recipe=RECIPE,
        status="completed",
        metric=1.7,
        test_metric=1.9,
        rungs=(Rung(share=0.0, images=0, metric=3.1, seconds=0.5),),
    )

    @pytest.mark.parametrize("metric", [ACCURACY, RMSE], ids=lambda metric: metric.name)
    def test_a_line_has_it_where_accuracy_always_stood(self, metric: MetricSpec) -> None:
        line = json.loads(self.measured.to_json(metric))
        names = list(line)

        assert (line[metric.name], line[f"test_{metric.name}"]) == (1.7, 1.9)
        assert (names.index(metric.name), names[-1]) == (3, f"test_{metric.name}")
        assert list(line["rungs"][0]) == ["share", "images", metric.name, "seconds"]
        assert Outcome.from_json(self.measured.to_json(metric), metric=metric) == self.measured

    def test_another_name_is_refused_in_a_rung_too(self) -> None:
        line = self.measured.to_json(RMSE).replace('"images": 0, "rmse"', '"images": 0, "metric"')

        with pytest.raises(InputError, match=r"log:7.rungs\[0\]: unknown key 'metric'; allowed: rmse, test_rmse"):
            Outcome.from_json(line, "log:7", metric=RMSE)

    def test_no_metric_is_called_as_another_field_is(self) -> None:
        fields = {*Outcome.__dataclass_fields__, *Rung.__dataclass_fields__, *self.measured.costs}

        assert fields - RESERVED == {"metric"}

    def test_studies_of_accuracy_call_it_so_in_python_too(self) -> None:
        assert (self.measured.accuracy, self.measured.test_accuracy, self.measured.rungs[0].accuracy) == (1.7, 1.9, 3.1)
