"""Study actor: what workers leave with it, called without Ray."""

import subprocess
import sys

import pytest

from autoprune.search.on_ray.study_actor import StudyActor
from autoprune.search.running.study_clock import StudyClock


@pytest.fixture
def actor(tmp_path):
    (tmp_path / "study.yaml").touch()
    return StudyActor(
        *(str(tmp_path / name) for name in (".", "finalists", "states")), workers=3, clock=StudyClock.at(7.0)
    )


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


def test_a_folder_that_is_gone_is_not_made_anew(actor, tmp_path):
    (tmp_path / "study.yaml").unlink()  # as where nothing is mounted any more
    for write in (actor.store_model, actor.store_state):
        with pytest.raises(FileNotFoundError):
            write(3, {"model.json": b"7"})
    with pytest.raises(FileNotFoundError):
        actor.load_state(3)
    actor.put("key", b"13")

    assert actor.get("key") is None
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_is_not_what_was_written_is_nothing_to_go_on_from(actor, tmp_path):
    actor.store_state(3, {"cut/weights": b"7" * 11, "progress.json": b"{}"})
    (tmp_path / "states" / "3" / "cut" / "weights").write_bytes(b"7" * 5)  # of a disk that lost its last writes

    assert actor.load_state(3) == {}


def test_the_actor_knows_the_time_of_the_study(actor):
    assert 7.0 <= actor.now() < 60.0


@pytest.mark.parametrize("module", ["study_actor", "segment_queue", "worker", "driver"])
def test_torch_is_not_loaded_before_a_task_is(module):
    """It takes seconds and 200 MB of every process, and the study actor and the queue never need it."""
    code = f"import sys, autoprune.search.on_ray.{module}; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
