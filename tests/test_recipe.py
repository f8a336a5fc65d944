"""Recipes: read once, at the edge; equal recipes have equal keys; errors name the path."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.errors import InputError, TargetError
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, Training

ratio = st.floats(0.001, 1)
recipes = st.builds(
    Recipe,
    method=st.builds(
        MethodChoice,
        name=st.sampled_from(["l1", "bn_scale"]),
        params=st.dictionaries(st.sampled_from(["penalty", "share"]), ratio),
    ),
    target=st.builds(Target, flops=st.none() | ratio, params=st.none() | ratio),
    allocation=st.builds(
        Allocation,
        name=st.sampled_from(["uniform", "ratios", "global", "features"]),
        depth=ratio,
        sensitivity=ratio,
        ratios=st.dictionaries(st.text(min_size=1, max_size=5), ratio, max_size=3),
        max_ratio=ratio,
        min_channels=st.integers(1, 99),
        round_to=st.integers(1, 512),
    ),
    training=st.builds(Training, images=st.integers(0, 10**9), lr=ratio, rungs=st.lists(ratio, max_size=3).map(tuple)),
    seed=st.integers(0, 2**32 - 1),
)


@given(recipes)
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))

    assert recipe == again
    assert recipe.key() == again.key()


@given(recipes, recipes)
def test_keys_tell_recipes_apart(one: Recipe, two: Recipe) -> None:
    assert (one == two) == (one.key() == two.key())


def test_a_key_is_the_same_on_every_machine() -> None:
    assert Recipe(method=MethodChoice(name="l1"), target=Target(flops=0.5)).key() == "d09d6a9afd85"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methd": 1}, r"recipe: unknown key 'methd' \(did you mean 'method'\?\); allowed: allocation, method"),
        ({"method": "l1"}, "recipe.method: expected a mapping, found 'l1'"),
        ({"method": {}}, "recipe.method: missing key 'name'"),
        ({"target": {"flops": 1.5}}, r"recipe.target.flops: 1.5 is out of range; allowed: \(0, 1\]"),
        ({"target": {"flops": 0}}, r"recipe.target.flops: 0.0 is out of range; allowed: \(0, 1\]"),
        ({"target": {"flops": True}}, "recipe.target.flops: expected a number, found True"),
        ({"training": {"images": 1.5}}, "recipe.training.images: expected a whole number, found 1.5"),
        ({"training": {"lr": float("nan")}}, "recipe.training.lr: nan is out of range"),
        ({"training": {"schedule": "cosin"}}, r"unknown value 'cosin' \(did you mean 'cosine'\?\)"),
        ({"training": {"rungs": [0, 2]}}, r"recipe.training.rungs\[1\]: 2.0 is out of range; allowed: \[0, 1\]"),
        ({"allocation": {"ratios": {"a": -1}}}, r"recipe.allocation.ratios.a: -1.0 is out of range"),
        ({"allocation": {"round_to": 0}}, r"recipe.allocation.round_to: 0 is out of range; allowed: \[1, 512\]"),
        ({"allocation": {"stream": 6}}, r"recipe.allocation.stream: 6.0 is out of range; allowed: \[-5, 5\]"),
        ({"allocation": {"round_to": 2.5}}, "recipe.allocation.round_to: expected a whole number, found 2.5"),
    ],
)
def test_errors_name_the_path_and_what_is_allowed(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.from_dict({"method": {"name": "l1"}, **change})


def test_a_target_made_in_code_is_checked_too() -> None:
    with pytest.raises(InputError, match=r"target.flops: 1.5 is out of range"):
        Target(flops=1.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "globl"}, r"allocation.name: unknown value 'globl' \(did you mean 'global'\?\)"),
        ({"round_to": 513}, r"allocation.round_to: 513 is out of range; allowed: \[1, 512\]"),
        ({"min_channels": 0}, r"allocation.min_channels: 0 is out of range"),
        ({"max_ratio": 0.0}, r"allocation.max_ratio: 0.0 is out of range; allowed: \(0, 1\]"),
    ],
)
def test_an_allocation_made_in_code_is_checked_too(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Allocation(**fields)


def test_errors_are_one_line_and_survive_a_pickle() -> None:
    import pickle

    error = TargetError("a\nb", where="here", allowed="c")

    assert str(error) == "here: a b; allowed: c"
    assert (again := pickle.loads(pickle.dumps(error))).__class__ is TargetError
    assert str(again) == str(error)
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        ("l1", MethodChoice(name="l1")),
        ({"name": "bn_scale", "penalty": 1e-4}, MethodChoice(name="bn_scale", params={"penalty": 1e-4})),
        (MethodChoice(name="l2"), MethodChoice(name="l2")),
    ],
)
def test_a_method_may_be_a_name_or_a_mapping(value: Any, choice: MethodChoice) -> None:
    recipe = Recipe(method=value)

    assert recipe.method == choice
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (None, "recipe.method: None is no method; allowed: a name, or a mapping with name and hyper-parameters"),
        (7, "recipe.method: 7 is no method"),
        ({"penalty": 1e-4}, "recipe.method: missing key 'name'"),
        ({"name": 3}, "recipe.method: missing key 'name'"),
    ],
)
def test_what_is_no_method_is_refused_at_once(value: Any, what: str) -> None:
    with pytest.raises(InputError, match=what):
        Recipe(method=value)
