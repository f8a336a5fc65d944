"""Recipes that cannot work are drawn again: they count for nothing, and what is drawn instead can be told again."""

from __future__ import annotations

from collections.abc import Callable

import fakes
import pytest
from optuna.trial import TrialState

from autoprune.errors import InputError, TargetError
from autoprune.recipe import Recipe
from autoprune.search.proposing.proposer import Proposer
from autoprune.search.proposing.redraws import DRAWN, DRAWN_AS_PLANNED, draws
from autoprune.study.config import Sampler
from autoprune.study.outcome import Outcome, Proposal

SAMPLERS = ("tpe", pytest.param("gp", marks=pytest.mark.long), "nsga2", "nsga3", "random")


def coarse(recipe: Recipe) -> InputError | None:
    """As if `ratios` could not go below 0.5."""
    low = recipe.allocation.name == "ratios" and (recipe.target.flops or 1) < 0.5
    return TargetError("flops cannot be reached") if low else None


def proposer(sampler: str, refuse: Callable[[Recipe], InputError | None], **options: object) -> Proposer:
    return Proposer(fakes.bound_space(), sampler=Sampler(name=sampler, startup=8), seed=3, refuse=refuse, **options)  # type: ignore[arg-type]


def play(asked: Proposer, count: int) -> tuple[list[Proposal], list[Outcome]]:
    proposals, outcomes = [], []
    for _ in range(count):
        proposals.append(asked.next(now=float(len(proposals))))
        outcomes.append(fakes.completed(proposals[-1]))
        asked.tell(outcomes[-1])
    return proposals, outcomes


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_handed_out_can_work_and_is_numbered_without_gaps(sampler: str) -> None:
    asked = proposer(sampler, coarse)
    proposals, _ = play(asked, 16)

    assert [proposal.id for proposal in proposals] == list(range(16))
    assert [coarse(proposal.recipe) for proposal in proposals if not proposal.control] == [None] * 14
    assert {"ratios", "uniform"} <= {proposal.recipe.allocation.name for proposal in proposals}
    assert any(coarse(proposal.recipe) for proposal in play(proposer(sampler, lambda _: None), 16)[0])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_pass_over_what_was_refused(sampler: str) -> None:
    asked = proposer(sampler, coarse)
    play(asked, 14)
    states = [trial.state for trial in asked.optuna_study.get_trials(deepcopy=False)]

    assert states.count(TrialState.FAIL) == len(states) - 12  # the controls are not told
    assert states.count(TrialState.FAIL) > 0
    assert states.count(TrialState.COMPLETE) == 12


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_that_goes_on_draws_what_it_would_have_drawn(sampler: str) -> None:
    whole, outcomes = play(proposer(sampler, coarse), 18)
    again = proposer(sampler, coarse, proposals=whole[:12], outcomes=outcomes[:12])

    assert [proposal.recipe for proposal in play(again, 6)[0]] == [proposal.recipe for proposal in whole[12:]]


def test_a_planned_recipe_keeps_all_but_its_target_for_a_while() -> None:
    planned = {"method": "l1", "target.flops": 0.2}
    first, *others = draws(fakes.bound_space(), planned, {"weights": "front"})

    assert first == {**planned, "weights": "front"}
    assert others[: DRAWN_AS_PLANNED - 1] == [{"method": "l1", "weights": "front"}] * (DRAWN_AS_PLANNED - 1)
    assert others[DRAWN_AS_PLANNED - 1 :] == [{"weights": "front"}] * (DRAWN - DRAWN_AS_PLANNED)


def test_the_random_control_lies_where_its_target_can_be_met() -> None:
    asked = proposer("random", lambda recipe: TargetError("no") if (recipe.target.flops or 1) < 0.6 else None)
    _, random = play(asked, 2)[0]

    assert random.recipe.method.name == "random"
    assert 0.6 <= (random.recipe.target.flops or 0) < 0.7


def test_a_space_of_which_nothing_can_work_ends_and_says_why() -> None:
    with pytest.raises(InputError, match=rf"space: none of {DRAWN} recipes .*, the last one because no way"):
        play(proposer("tpe", lambda _: TargetError("no way")), 3)
