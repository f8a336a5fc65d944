"""A search whose recipes go on from members of the front: parents, their models, resume, finalists."""

import json
from dataclasses import replace

import fakes
import pytest

from autoprune.errors import InputError
from autoprune.search.running import in_process
from autoprune.search.running.limits import Limits
from autoprune.study.config import Finalists
from autoprune.study.finalists import TIMES_LONGER, by_member, rows, shorter_than_searched, to_train
from autoprune.study.folder import load_study
from autoprune.study.lineages import lineage, recipes_by_number
from autoprune.study.metric import ACCURACY

LINEAGES = {"weights": {"choice": ["trained", "front"]}}


def config(trials=30, **rest):
    return replace(fakes.study_config(trials=trials, **LINEAGES, **rest), controls=False)


def searched(path, **rest):
    session = fakes.open_session(path, config(**rest))
    fakes.run_here(session, rungs=(1.0,))
    return session, load_study(path)


def kept(session):
    return {int(path.name) for path in session.folder.models.iterdir()}


def handed_out(study):
    return [(proposal.id, proposal.recipe, proposal.expected) for proposal in study.proposals]


def test_recipes_descend_from_each_other_and_the_log_says_from_whom(tmp_path):
    _, study = searched(tmp_path)
    outcomes, recipes = {outcome.id: outcome for outcome in study.outcomes}, recipes_by_number(study.proposals)
    depths = [len(lineage(recipe, recipes)) for recipe in recipes.values()]

    assert all(outcome.completed for outcome in study.outcomes)
    assert max(depths) >= 4
    for number, recipe in recipes.items():
        assert recipe.weights == ("trained" if recipe.parent is None else "front")
        assert outcomes[number].ancestor_images == 1000 * len(lineage(recipe, recipes))
        if recipe.parent is not None:
            assert recipe.target.flops <= outcomes[recipe.parent].flops_ratio
            assert outcomes[recipe.parent].finished <= outcomes[number].started


def test_no_training_is_made_so_long_that_it_would_count_as_hung(tmp_path):
    """One takes 1.1 seconds here, however many images it has."""
    longer = {**fakes.SPACE["training"], "images": {"int": [1000, 4000], "log": True}}
    found = {}
    for minutes in (0.03, 120.0):
        _, study = searched(tmp_path / str(minutes), trials=60, timeout=minutes, training=longer)
        found[minutes] = {proposal.recipe.training.images for proposal in study.proposals}
    assert found[0.03] == {1000}
    assert found[120.0] > {1000}


def test_all_see_the_same_batches(tmp_path):
    _, study = searched(tmp_path)
    assert {proposal.recipe.seed for proposal in study.proposals} == {0}


def test_models_that_nothing_needs_any_more_go(tmp_path):
    session, study = searched(tmp_path, trials=40)
    assert kept(session) == {member.id for member in study.front} | session.proposer.parents()
    assert len(kept(session)) < 30


def test_a_parent_is_kept_while_a_child_has_not_ended(tmp_path):
    session, study = searched(tmp_path, trials=6)
    child = study.proposals[-1]  # nothing goes on from the last one
    lines = [line for line in session.folder.outcomes.read_text().splitlines() if json.loads(line)["id"] != child.id]
    session.folder.outcomes.write_text("".join(f"{line}\n" for line in lines))
    better = replace(fakes.completed(child), id=99, metric=0.999, flops_ratio=0.01)
    with session.folder.outcomes.open("a") as log:
        log.write(better.to_json() + "\n")

    again = fakes.open_session(tmp_path, config(6))
    assert child.recipe.parent in kept(again)
    fakes.run_here(again)
    ended = {outcome.id: outcome for outcome in load_study(tmp_path).outcomes}
    assert ended[child.id].completed
    assert child.recipe.parent not in kept(again)


@pytest.mark.parametrize("killed", [1, 5, 12, 20])
def test_killed_and_resumed_hands_out_the_same_recipes_and_parents(tmp_path, killed):
    _, whole = searched(tmp_path / "whole", trials=24)
    first = fakes.open_session(tmp_path / "killed", config(24), limits=Limits(trials=killed))
    fakes.run_here(first)
    lost = first.proposer.next(now=1.0)
    with first.folder.proposals.open("a") as log:
        log.write(lost.to_json() + "\n")

    fakes.run_here(fakes.open_session(tmp_path / "killed", config(24)))

    assert handed_out(load_study(tmp_path / "killed")) == handed_out(whole)


def test_a_recipe_that_fails_is_not_tried_again_and_has_no_children(tmp_path):
    session = fakes.open_session(tmp_path, config(30))
    fakes.run_here(session, trouble={2: "raise", 5: "nan"})
    study = load_study(tmp_path)
    steps = [(recipe.parent, recipe.target.flops) for recipe in recipes_by_number(study.proposals).values()]

    assert [outcome.id for outcome in study.outcomes if outcome.status == "failed"] == [2, 5]
    assert len(set(steps)) == len(steps)
    assert not {2, 5} & {parent for parent, _ in steps}


def test_trials_that_pause_go_on_from_their_parents_too(tmp_path):
    session = fakes.open_session(tmp_path, config(30, rungs=(0.5, 1.0), keep=0.5))
    fakes.run_here(session, rungs=(0.5, 1.0))
    session.close()
    statuses = {outcome.status for outcome in load_study(tmp_path).outcomes}
    assert statuses == {"completed", "stopped"}


def test_lineages_need_one_target_with_a_range(tmp_path):
    with pytest.raises(InputError, match=r"space\.target"):
        fakes.open_session(tmp_path, config(target={"flops": 0.5}))


def test_a_finalist_runs_its_lineage_with_as_many_images_as_any_other(tmp_path):
    _, study = searched(tmp_path)
    entries = to_train(study, Finalists(seeds=2, images=7001))
    recipes = recipes_by_number(study.proposals)

    for entry in entries:
        own, ancestors = entry.proposal.recipe, entry.proposal.ancestors
        assert sum(recipe.training.images for recipe in (*ancestors, own)) == 7001
        if entry.member >= 0:
            line = [recipe for _, recipe in lineage(recipes[entry.member], recipes)]
            assert [recipe.target for recipe in (*ancestors, own)] == [r.target for r in (*line, recipes[entry.member])]
    deepest = max(len(entry.proposal.ancestors) for entry in entries)
    assert deepest >= 4
    assert {entry.proposal.recipe.seed for entry in entries if entry.member == -1} == {0, 1}


def test_nothing_is_trained_for_less_than_it_was_in_the_search(tmp_path):
    _, study = searched(tmp_path)
    recipes = recipes_by_number(study.proposals)
    longest = max(1000 * (1 + len(lineage(member.recipe, recipes))) for member in study.front)
    assert {entry.images for entry in to_train(study, Finalists(most=50))} == {max(TIMES_LONGER * 1000, longest)}


def test_fewer_images_than_a_lineage_had_are_pointed_out(tmp_path):
    _, study = searched(tmp_path)
    recipes = recipes_by_number(study.proposals)
    had = {member.id: 1000 * (1 + len(lineage(member.recipe, recipes))) for member in study.front}
    longest = max(had.values())
    short = sum(images == longest for images in had.values())
    told = shorter_than_searched(study, to_train(study, Finalists(images=longest - 1, most=50)))

    assert f"had {longest:,} images in the search and gets {longest - 1:,}" in told
    assert told.endswith(f" and {short - 1} others" if short > 1 else "by it")
    assert shorter_than_searched(study, to_train(study, Finalists(images=longest, most=50))) == ""


def test_finalists_say_how_much_of_the_searched_accuracy_they_reproduce(tmp_path):
    _, study = searched(tmp_path)
    retraining = fakes.open_retraining(study, Finalists(seeds=1, images=9000, most=50))
    in_process.run(retraining, fakes.Fake(retraining.clock, 0.0, None, final=True), trial_timeout=60.0)
    after = load_study(tmp_path)
    known = {outcome.id: outcome.accuracy for outcome in after.outcomes}

    assert to_train(after, Finalists(seeds=1, most=50)) == []
    assert {one.member for one in by_member(after.finalists, ACCURACY)} == {-1, *(member.id for member in after.front)}
    for row in rows(after):
        if row["trial"] != -1:
            assert row["reproduced"] == pytest.approx(row["validation"] - known[row["trial"]])
