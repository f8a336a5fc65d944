"""Study actor: what workers leave with it, called without Ray."""

import pytest

from autoprune.search.on_ray.study_actor import StudyActor


@pytest.fixture
def actor(tmp_path):
    return StudyActor(str(tmp_path), str(tmp_path / "finalists"), workers=3)


def test_the_barrier_opens_when_all_have_arrived(actor):
    opened = []
    for _ in range(4):
        opened.append(actor.all_arrived())
        actor.arrive()

    assert opened == [False, False, False, True]


def test_a_trial_that_timed_out_is_known_by_its_number(actor):
    actor.time_out(7)

    assert [actor.has_timed_out(number) for number in (3, 7)] == [False, True]


def test_models_and_states_go_into_their_folders(actor, tmp_path):
    actor.store_model(3, {"model.json": b"7"})
    actor.store_state(3, {"deep/state": b"11"})

    assert (tmp_path / "finalists" / "3" / "model.json").read_bytes() == b"7"
    assert (tmp_path / "states" / "3" / "deep" / "state").read_bytes() == b"11"
    assert actor.load_state(3) == {"deep/state": b"11"}


def test_the_cache_is_that_of_the_study(actor, tmp_path):
    assert actor.get("key") is None
    actor.put("key", b"13")

    assert actor.get("key") == b"13"
    assert (tmp_path / "shared" / "key").read_bytes() == b"13"
