"""What is known of a recipe before it runs is what its trial would have found out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoprune import methods
from autoprune.errors import InputError, TargetError
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training
from autoprune.trial.feasibility import Feasibility
from autoprune.trial.run import run
from autoprune.trial.shared import SharedState

RECIPE = Recipe(
    method=MethodChoice(name="l1"),
    target=Target(flops=0.5),
    allocation=Allocation(round_to=8),
    training=Training(images=64, batch_size=32),
)


@pytest.fixture(scope="module")
def feasibility(one_thread: SharedState) -> Feasibility:
    return Feasibility(one_thread)


@pytest.mark.parametrize("method", ["l1", "svd", "fuzzy", "bn_scale"])
@pytest.mark.parametrize("flops", [0.05, 0.2, 0.37, 0.61, 0.83])
def test_a_target_that_is_not_refused_is_met(
    one_thread: SharedState, feasibility: Feasibility, method: str, flops: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods.METHODS[method], "least_steps", 1)
    recipe = replace(RECIPE, method=MethodChoice(name=method), target=Target(flops=flops))

    known, outcome = feasibility.refusal(recipe), run(recipe, one_thread).outcome

    assert (known is None) == outcome.completed, outcome.error
    assert known is None or str(known) == outcome.error


def test_a_method_is_asked_once_for_what_differs_in_numbers_alone(
    feasibility: Feasibility, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    kind = methods.METHODS["bn_scale"]
    before = kind.groups
    monkeypatch.setattr(kind, "groups", lambda self, context: asked.append(self.penalty) or before(self, context))
    fresh = Feasibility(feasibility._shared)
    for penalty in (1e-5, 1e-4, 1e-3):
        fresh.check(replace(RECIPE, method=MethodChoice(name="bn_scale", params={"penalty": penalty}), target=Target()))

    assert asked == [1e-5]


def test_a_recipe_that_goes_on_from_another_is_judged_by_its_reach_alone(feasibility: Feasibility) -> None:
    gap = next(
        target
        for target in (Target(flops=share / 100) for share in range(20, 100))
        if "found no widths" in str(feasibility.refusal(replace(RECIPE, target=target)))
    )

    feasibility.check(replace(RECIPE, weights="front", parent=3, target=gap))
    with pytest.raises(TargetError, match="cannot be reached"):
        feasibility.check(replace(RECIPE, weights="front", parent=3, target=Target(flops=0.001)))


def test_the_smallest_ratio_is_the_lowest_target_that_is_not_refused(feasibility: Feasibility) -> None:
    least = feasibility.smallest_ratios(RECIPE.method, RECIPE.allocation)["flops"]

    feasibility.check(replace(RECIPE, target=Target(flops=least + 1e-9)))
    with pytest.raises(TargetError, match="cannot be reached"):
        feasibility.check(replace(RECIPE, target=Target(flops=least - 1e-4)))


def test_too_few_steps_are_refused_with_the_images_that_would_do(feasibility: Feasibility) -> None:
    needs = max(methods.METHODS.values(), key=lambda method: method.least_steps)
    short = replace(RECIPE, method=MethodChoice(name=needs.name), allocation=Allocation())
    least = needs.least_steps * 32

    feasibility.check_method(replace(short, training=replace(short.training, images=least)))
    with pytest.raises(InputError, match=f"{needs.name} needs .* steps, 64 images give 2; allowed: {least:,} images"):
        feasibility.check_method(short)


def test_a_method_that_needs_another_model_is_refused(
    feasibility: Feasibility, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> tuple[str, ...]:
        raise InputError("needs batch norms")

    monkeypatch.setattr(methods.METHODS["bn_scale"], "groups", refuse)
    fresh = Feasibility(feasibility._shared)

    assert "needs batch norms" in str(fresh.refusal(replace(RECIPE, method=MethodChoice(name="bn_scale"))))
    assert fresh.refusal(replace(RECIPE, target=Target())) is None
