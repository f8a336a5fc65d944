"""What a space means: names of parameters, branches, groups of a model, recipes at its corners and at random."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces import GROUPS, SPACE, Scripted, drawn, read_space

from autoprune import methods
from autoprune.errors import InputError
from autoprune.recipe import Recipe
from autoprune.study.space import Space


def test_names_are_dotted_paths_and_what_is_outside_a_branch_is_shared():
    space, low, other = read_space(SPACE).bind(GROUPS), Scripted(), Scripted(method="bn_scale", allocation="ratios")

    assert space.walk(low) == {
        "method": {"name": "l1"},
        "target": {"flops": 0.1},
        "allocation": {"name": "uniform"},
        "training": {"images": 128, "lr": 0.001},
    }
    assert space.walk(other)["method"] == {"name": "bn_scale", "penalty": 1e-5, "share": 0.25}
    assert list(low.asked) == ["method", "target.flops", "allocation", "training.images", "training.lr"]
    assert list(other.asked) == [
        "method",
        "method.bn_scale.penalty",
        "target.flops",
        "allocation",
        *(f"allocation.ratios.ratios.stage{n}" for n in range(3)),
        "training.images",
        "training.lr",
    ]
    assert other.asked["method.bn_scale.penalty"] == (1e-5, 1e-3, True)
    assert other.asked["training.images"] == (128, 640, 128, False)


def test_each_group_gives_one_parameter_per_prunable_group():
    space = read_space("method: l1\nallocation: {name: ratios, ratios: {each: group, float: [0, 1]}}").bind(GROUPS)

    assert list(space.parameters()) == [f"allocation.ratios.{group}" for group, _ in GROUPS]
    assert Recipe.from_dict(space.walk(Scripted())).allocation.ratios == {group: 0.0 for group, _ in GROUPS}


def test_an_unbound_each_refuses_to_be_walked():
    with pytest.raises(InputError, match="bound to the model's groups"):
        read_space("method: l1\nallocation: {name: ratios, ratios: {each: group, float: [0, 1]}}").walk(Scripted())


@pytest.mark.parametrize("key", ["layer1.0.conv1", "stage2", "layer*.conv1"])
def test_ratios_by_group_stage_or_pattern_are_accepted(key):
    space = read_space(f"method: l1\nallocation: {{name: ratios, ratios: {{'{key}': {{float: [0.1, 1]}}}}}}")

    assert list(space.bind(GROUPS).parameters()) == [f"allocation.ratios.{key}"]


def test_ratios_of_a_group_that_is_not_there_are_refused():
    space = read_space("method: l1\nallocation: {name: ratios, ratios: {layer1.0.conv7: 0.5}}")

    with pytest.raises(InputError, match=r"layer1\.0\.conv7.*did you mean 'layer1\.0\.conv1'"):
        space.bind(GROUPS)


def test_methods_and_allocations_may_be_plain_names():
    space = read_space("method: {choice: [l1, l2]}\nallocation: uniform\ntarget: {flops: 0.5}")

    assert space.methods() == ("l1", "l2")
    assert space.walk(Scripted(method="l2")) == {
        "method": {"name": "l2"},
        "allocation": {"name": "uniform"},
        "target": {"flops": 0.5},
    }


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{choice: {l1: {}, l3: {}}}", "unknown method 'l3'"),
        ("{choice: {l1: {}, bn_scale: {penality: 1}}}", "unknown hyper-parameter of 'bn_scale' 'penality'"),
        ("{choice: {l1: {}, bn_scale: {penalty: {float: [0.1, 7]}}}}", "7.0 is out of range"),
        ("{name: l1, images: 3}", "unknown hyper-parameter of 'l1' 'images'"),
    ],
)
def test_every_branch_of_the_methods_is_checked(text, what):
    with pytest.raises(InputError) as caught:
        read_space(f"method: {text}", check_method=methods.build)

    assert str(caught.value).startswith("my.yaml: space.method")
    assert what in str(caught.value)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_random_walks_are_recipes_and_survive_the_way_through_plain_data(seed):
    space = read_space(SPACE).bind(GROUPS)
    plain = space.walk(drawn(seed))
    recipe = Recipe.from_dict(plain)

    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert space.walk(drawn(seed)) == plain
    assert Space.read(space.to_plain()).walk(drawn(seed)) == plain
