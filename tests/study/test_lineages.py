"""Lineages: who goes on from whom."""

import pytest

from autoprune.errors import InputError
from autoprune.recipe import MethodChoice, Recipe
from autoprune.study.lineages import lineage, recipes_by_number
from autoprune.study.outcome import Outcome, Proposal, Rung


def recipe(parent=None):
    return Recipe(method=MethodChoice(name="l1"), weights="trained" if parent is None else "front", parent=parent)


PROPOSALS = [Proposal(id=n, recipe=recipe(parent)) for n, parent in ((2, None), (3, 2), (5, 3), (7, 3), (11, None))]


def test_a_lineage_leads_from_the_dense_model_to_the_parent():
    recipes = recipes_by_number(PROPOSALS)
    assert lineage(recipes[7], recipes) == [(2, recipes[2]), (3, recipes[3])]
    assert lineage(recipes[11], recipes) == []


@pytest.mark.parametrize("recipes", [{}, {4: recipe(9), 9: recipe(4)}])
def test_a_lineage_without_a_beginning_is_refused(recipes):
    with pytest.raises(InputError, match="is no parent"):
        lineage(recipe(4), recipes)


def test_an_outcome_counts_its_own_images_and_its_ancestors():
    rungs = (
        Rung(share=0.5, images=500, metric=0.5, seconds=1.0),
        Rung(share=1, images=1001, metric=0.5, seconds=2),
    )
    outcome = Outcome(id=7, recipe=recipe(3), status="completed", rungs=rungs, ancestor_images=3000)
    assert (outcome.own_images, outcome.lineage_images) == (1001, 4001)
    assert Outcome.from_json(outcome.to_json()) == outcome


def test_a_proposal_comes_back_with_its_ancestors():
    proposal = Proposal(id=7, recipe=recipe(3), ancestors=(recipe(), recipe(2)), expected=0.875)
    assert Proposal.from_json(proposal.to_json()) == proposal
