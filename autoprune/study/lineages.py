"""Lineages: which trials go on from which, and what their ancestors cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from autoprune.errors import InputError
from autoprune.recipe import Recipe
from autoprune.study.outcome import Proposal


def lineage(recipe: Recipe, recipes: Mapping[int, Recipe]) -> list[tuple[int, Recipe]]:
    """The trials that a recipe goes on from, each as its number and recipe, from the dense model on; without itself.

    Args:
        recipes: of the study, by the number of their trial.

    Raises:
        InputError: an ancestor is not among them.
    """
    found: list[tuple[int, Recipe]] = []
    while recipe.parent is not None:
        if recipe.parent not in recipes or any(number == recipe.parent for number, _ in found):
            raise InputError(f"trial {recipe.parent} is no parent", where="recipe.parent", allowed="an earlier trial")
        found.append((recipe.parent, recipes[recipe.parent]))
        recipe = recipes[recipe.parent]
    return found[::-1]


def recipes_by_number(proposals: Iterable[Proposal]) -> dict[int, Recipe]:
    """The recipes of a study by the number of their trial."""
    return {proposal.id: proposal.recipe for proposal in proposals}
