"""What is tried before the sampler takes over: warm starts, the spread, and the front of an earlier study."""

import fakes
import numpy as np
import pytest

from autoprune.errors import InputError, StudyError
from autoprune.recipe import Recipe
from autoprune.search.proposing import first_recipes
from autoprune.search.proposing.proposer import Proposer
from autoprune.study.config import Sampler
from autoprune.study.folder import Study, StudyFolder
from autoprune.study.outcome import Outcome, Proposal
from autoprune.study.parameters import Choice, Float, Int
from autoprune.study.space import Space

GLOBAL = {"uniform": {}, "global": {"normalise": {"choice": ["max", "mean", "none"]}}}
WHOLE = {
    "method": {"choice": {"fpgm": {}, "l1": {}, "taylor": {}, "bn_scale": {"penalty": {"float": [1e-5, 1e-3]}}}},
    "target": {"flops": {"float": [0.2, 0.8]}},
    "allocation": {"choice": GLOBAL},
    "training": {"lr": {"float": [0.001, 0.1], "log": True}},
}


def said(space, planned):
    """Method, allocation, normalisation and target of the planned recipes."""
    recipes = []
    for params in planned:
        recipe = Recipe.from_dict(space.walk(first_recipes.Middle(params)), "planned")
        recipes.append((recipe.method.name, recipe.allocation.name, recipe.allocation.normalise))
    return list(zip(recipes, [params.get("target.flops") for params in planned], strict=True))


class TestWarmStarts:
    def test_uniform_l1_then_global_l1_then_global_taylor(self):
        space = Space.read(WHOLE)
        ways, targets = zip(*said(space, first_recipes.warm_starts(space)), strict=True)

        uniform, by_mean, as_it_is = ("l1", "uniform", "mean"), ("l1", "global", "mean"), ("taylor", "global", "none")
        assert ways == (uniform, uniform, uniform, by_mean, by_mean, as_it_is, as_it_is)
        assert targets == pytest.approx((0.29, 0.5, 0.71, 0.38, 0.62, 0.38, 0.62))

    def test_what_is_not_offered_is_left_out(self):
        no_taylor = Space.read({**WHOLE, "method": {"choice": ["l1", "fpgm"]}})
        only_ratios = Space.read({**WHOLE, "allocation": {"name": "ratios", "ratios": {"*": {"float": [0, 1]}}}})

        assert {way[:2] for way, _ in said(no_taylor, first_recipes.warm_starts(no_taylor))} == {
            ("l1", "uniform"),
            ("l1", "global"),
        }
        assert first_recipes.warm_starts(only_ratios) == []

    def test_a_fixed_method_and_a_fixed_target_are_one_recipe_per_allocation(self):
        space = Space.read({**WHOLE, "method": "l1", "target": {"flops": 0.5}})

        assert [way for way, _ in said(space, first_recipes.warm_starts(space))] == [
            ("l1", "uniform", "mean"),
            ("l1", "global", "mean"),
        ]

    def test_they_count_towards_the_startup(self):
        space = Space.read(WHOLE)
        first = [len(first_recipes.first_recipes(space, Sampler(startup=count), seed=0)) for count in (0, 4, 7, 11)]

        assert first == [0, 4, 7, 11]
        assert first_recipes.first_recipes(space, Sampler(startup=4), seed=0) == first_recipes.warm_starts(space)[:4]

    def test_without_them_all_are_spread(self):
        space = Space.read(WHOLE)
        planned = first_recipes.first_recipes(space, Sampler(startup=9, warm_start=False), seed=0)

        slices = np.floor((np.array([params["target.flops"] for params in planned]) - 0.2) / 0.6 * 9)
        assert sorted(slices) == list(range(9))
        assert not any("allocation" in params for params in planned)

    @pytest.mark.parametrize("seed", range(4))
    def test_the_spread_begins_with_methods_that_had_no_turn(self, seed):
        space = Space.read(WHOLE)
        planned = first_recipes.first_recipes(space, Sampler(startup=9), seed=seed)

        assert {params["method"] for params in planned[7:]} == {"fpgm", "bn_scale"}


class TestContains:
    @pytest.mark.parametrize(
        ("kind", "inside", "outside"),
        [
            (Float(0.5, 2.0), (0.5, 1, 2.0), (0.49, 2.01, "1", True, None, float("nan"))),
            (Int(3, 11, step=4), (3, 7, 11), (5, 15, -1, 7.0, True)),
            (Choice((0, "a", None)), (0, "a", None), (False, 0.0, "b")),
        ],
    )
    def test_type_range_and_grid(self, kind, inside, outside):
        assert [first_recipes.contains(kind, value) for value in inside] == [True] * len(inside)
        assert [first_recipes.contains(kind, value) for value in outside] == [False] * len(outside)


def earlier(space, path, count=14, **changes):
    """A study of that space, run by formula."""
    proposer, proposals, outcomes = Proposer(space, sampler=Sampler(name="random", startup=count)), [], []
    for _ in range(count):
        proposal = Proposal.from_json(proposer.next().to_json())
        outcome = fakes.completed(proposal)
        proposals.append(proposal)
        outcomes.append(Outcome(**{**vars(outcome), **changes}))
    return Study(StudyFolder(path), {}, tuple(proposals), tuple(outcomes))


class TestFromFront:
    def test_a_front_in_its_own_space_comes_back_as_it_was(self, tmp_path):
        space = fakes.bound_space()
        study = earlier(space, tmp_path)
        taken = first_recipes.from_front(study, space, most=99)
        # fakes.completed ranks by the target and the length of the method's name.
        best = {proposal.id: dict(proposal.params) for proposal in study.proposals}

        assert len(taken) >= 3
        assert [params["target.flops"] for params in taken] == sorted(params["target.flops"] for params in taken)
        assert all(any(params.items() >= other.items() for other in best.values() if other) for params in taken)

    def test_at_most_so_many_spread_along_the_front_with_both_ends(self, tmp_path):
        space = fakes.bound_space()
        study = earlier(space, tmp_path, count=40)
        everything, three = (first_recipes.from_front(study, space, most=most) for most in (99, 3))

        assert [three[0], three[-1]] == [everything[0], everything[-1]]
        assert len(three) == 3

    def test_names_and_values_that_this_space_has_not_are_left_out(self, tmp_path):
        study = earlier(fakes.bound_space(), tmp_path, count=40)
        space = Space.read(
            {
                "method": {"choice": ["l2", "svd"]},
                "target": {"flops": {"float": [0.1, 0.4]}},
                "training": {"lr": {"float": [0.001, 0.1], "log": True}, "distill": {"choice": [0.0, 0.5]}},
            }
        )
        taken = first_recipes.from_front(study, space, most=99)

        assert {name for params in taken for name in params} <= {"method", "target.flops", "training.lr"}
        assert {params["method"] for params in taken if "method" in params} <= {"l2"}
        assert all(params.get("target.flops", 0.1) <= 0.4 for params in taken)
        assert any("target.flops" not in params for params in taken)
        assert all("training.lr" in params for params in taken)

    def test_what_was_fixed_there_may_be_a_parameter_here(self, tmp_path):
        study = earlier(Space.read({**WHOLE, "method": "l1", "target": {"flops": 0.5}}), tmp_path)
        taken = first_recipes.from_front(study, Space.read(WHOLE), most=99)

        assert {(params["method"], params["target.flops"]) for params in taken} == {("l1", 0.5)}

    def test_nothing_in_common_is_an_error(self, tmp_path):
        study = earlier(fakes.bound_space(), tmp_path)
        with pytest.raises(InputError, match=r"no parameter of this space; allowed: training\.momentum"):
            first_recipes.from_front(
                study, Space.read({"method": "svd", "training": {"momentum": {"float": [0, 0.9]}}}), most=9
            )

    def test_a_study_in_which_everything_failed_is_an_error(self, tmp_path):
        space = fakes.bound_space()
        study = earlier(space, tmp_path, status="failed", error="no", metric=None)
        with pytest.raises(StudyError, match="it has no front"):
            first_recipes.from_front(study, space, most=9)

    def test_they_come_first_and_the_sampler_fills_in_the_rest(self):
        first = ({"method": "bn_scale", "target.flops": 0.7}, {"training.lr": 0.05})
        sampler = Sampler(startup=6, first=first)
        proposer = Proposer(fakes.bound_space(), sampler=sampler)
        proposals = [proposer.next() for _ in range(8)]

        assert {**proposals[2].params, **first[0]} == proposals[2].params
        assert "method.bn_scale.penalty" in proposals[2].params
        assert proposals[3].recipe.training.lr == 0.05
        assert [p.recipe.method.name for p in proposals[4:7]] == ["l1"] * 3


class TestCheckFirst:
    def check(self, **params):
        first_recipes.check_first(Space.read(WHOLE), Sampler(first=({}, params)))

    def test_what_the_space_has_may_come_first(self):
        self.check(**{"method": "bn_scale", "method.bn_scale.penalty": 1e-4, "allocation.global.normalise": "none"})

    @pytest.mark.parametrize(
        ("params", "message"),
        [
            ({"methd": "l1"}, r"sampler\.first\[1\]: unknown parameter 'methd' \(did you mean 'method'\?\)"),
            ({"method": "svd"}, r"sampler\.first\[1\]\.method: 'svd' is not in the space; allowed: fpgm, l1, taylor"),
            ({"target.flops": 0.9}, r"target\.flops: 0\.9 is not in the space; allowed: \[0\.2, 0\.8\]"),
        ],
    )
    def test_anything_else_is_named(self, params, message):
        with pytest.raises(InputError, match=message):
            self.check(**params)
