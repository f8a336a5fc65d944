"""What of a space can work: ranges begin where a target can be met, and what cannot work is said or refused."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from spaces import GROUPS, read_space

from autoprune.errors import InputError, TargetError
from autoprune.recipe import Allocation, MethodChoice, Recipe
from autoprune.search.proposing.feasible_space import DRAWN, FeasibleSpace, feasible_space
from autoprune.study.parameters import Float
from autoprune.study.space import Space

SPACE = """
method: {{choice: {methods}}}
target: {target}
allocation: {{choice: {{uniform: {{}}, global: {{round_to: 8}}}}}}
training: {{images: 640}}
"""


@dataclass
class Known:
    """As if `global` with its blocks of channels reached 0.5 and `uniform` `least`, and some methods could not work."""

    least: float = 0.25
    unable: tuple[str, ...] = ()
    coarse: float = 0.5
    asked: list[Recipe] = field(default_factory=list)

    def refusal(self, recipe: Recipe) -> InputError | None:
        for check in (self.check_method, self.check_reach):
            try:
                check(recipe)
            except InputError as error:
                return error
        return None

    def check_method(self, recipe: Recipe) -> None:
        if recipe.method.name in self.unable:
            raise InputError(f"{recipe.method.name} needs 900 steps", where="training.images", allowed="9,000 images")

    def check_reach(self, recipe: Recipe) -> None:
        if min(recipe.target.ratios().values()) < self.smallest_ratios(recipe.method, recipe.allocation)["flops"]:
            raise TargetError("it cannot be reached", where="target", allowed="more")

    def smallest_ratios(self, choice: MethodChoice, allocation: Allocation) -> dict[str, float]:
        if choice.name in self.unable:
            raise InputError("no")
        return {"flops": self.least if allocation.round_to == 1 else self.coarse, "params": 0.1}


def space(target: str, methods: str = "[l1, svd]") -> Space:
    return read_space(SPACE.format(target=target, methods=methods)).bind(GROUPS)


def test_a_range_begins_where_some_recipe_meets_the_target_and_that_is_said() -> None:
    found = feasible_space(space("{flops: {float: [0.1, 0.9]}}"), Known(least=0.250001))

    assert found.space.parameters()["target.flops"] == Float(0.2501, 0.9)
    assert "target.flops is searched from 0.2501, not from 0.1: less cannot be reached on this model" in found.remarks


def test_a_space_of_which_all_can_work_stays_as_it_is() -> None:
    before = space("{flops: {float: [0.55, 0.9]}}")

    assert feasible_space(before, Known()) == FeasibleSpace(space=before)


def test_how_many_recipes_cannot_meet_their_target_is_said() -> None:
    (said,) = feasible_space(space("{flops: {float: [0.4, 0.9]}}"), Known()).remarks

    count = int(said.split()[0])
    assert said == f"{count} of {DRAWN} recipes drawn at random cannot meet their target; such recipes are drawn again"
    assert 0 < count < DRAWN / 4


def test_a_space_of_which_most_cannot_work_is_refused_with_what_to_change() -> None:
    with pytest.raises(InputError, match=r"space: 24 of 44 .* one because it cannot be reached; allowed: higher"):
        feasible_space(space("{flops: {float: [0.25, 0.9]}}"), Known(coarse=0.95, least=0.4999, unable=("svd",)))


@pytest.mark.parametrize("target", ["{flops: {float: [0.05, 0.2]}}", "{flops: 0.2}"])
def test_targets_out_of_reach_are_refused(target: str) -> None:
    with pytest.raises(TargetError, match=r"space.target: .*cannot be reached"):
        feasible_space(space(target), Known())


def test_two_targets_keep_their_ranges() -> None:
    before = space("{flops: {float: [0.1, 0.9]}, params: {float: [0.3, 1]}}")

    assert feasible_space(before, Known(least=0.05, coarse=0.05)).space == before


def test_methods_that_cannot_work_are_named_and_refused_if_none_is_left() -> None:
    target = "{flops: {float: [0.6, 0.9]}}"
    found = feasible_space(space(target), Known(unable=("svd",)))

    assert found.unable == ("svd",)
    assert found.remarks == ("svd needs 900 steps: it is not drawn",)
    assert found.space.without_methods(found.unable).methods() == ("l1",)
    with pytest.raises(InputError, match=r"space.training.images: l1 needs 900 steps; allowed: 9,000 images"):
        feasible_space(space(target), Known(unable=("l1", "svd")))
