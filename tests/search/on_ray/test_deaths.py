"""Why workers have died, and how often what they ran is tried; nothing here starts Ray."""

import pytest

from autoprune.search.on_ray.deaths import Attempts, Death, explain_death
from autoprune.search.on_ray.settings import ATTEMPTS, LOST_NODES

KILLED, WITH_NODE = Death("killed"), Death("gone", with_node=True)


@pytest.mark.parametrize(
    ("text", "death"),
    [
        ("ValueError: one\nray.tune.TuneError: two\n", Death("TuneError: two")),
        ("killed\n", Death("it crashed, was killed for lack of memory, or its node went away")),
        ("a.b.RayException: " + "x" * 400, Death("RayException: " + "x" * 286)),
        (
            "ray.exceptions.ActorDiedError: it died\n\tactor: 7\nThe actor died because its node has died. Node Id: 9",
            Death("ActorDiedError: it died", with_node=True),
        ),
        (
            "Failure # 1\nThe actor e71f is unavailable: The actor is temporarily unavailable: RpcError\n",
            Death("it crashed, was killed for lack of memory, or its node went away", with_node=True),
        ),
        (
            "ray.exceptions.RayTaskError\nautoprune.training.gpu_faults.UnusableGpuError: b: no device",
            Death("UnusableGpuError: b: no device", with_node=True),
        ),
        ("autoprune.training.gpu_faults.GpuFaultError: b: lost", Death("GpuFaultError: b: lost")),
    ],
)
def test_the_last_exception_that_ray_knows_of_explains_a_death(tmp_path, text, death):
    (tmp_path / "error.txt").write_text(text)

    assert explain_death(str(tmp_path / "error.txt")) == death


def test_nodes_that_go_are_no_attempts():
    attempts = Attempts()
    found = [attempts.count(3, death) for death in [WITH_NODE, KILLED] * (ATTEMPTS - 1) + [WITH_NODE]]

    assert found == [""] * (2 * ATTEMPTS - 1)
    assert attempts.count(3, KILLED) == f"the worker process died {ATTEMPTS} times: killed"
    assert attempts.count(4, KILLED) == ""


def test_what_takes_nodes_down_has_an_end():
    attempts = Attempts()
    found = [attempts.count(3, WITH_NODE) for _ in range(LOST_NODES)]

    assert found == [""] * (LOST_NODES - 1) + [f"the node or the GPU of its worker went away {LOST_NODES} times: gone"]


def test_the_next_segment_of_a_trial_begins_anew():
    attempts = Attempts()
    for death in [KILLED] * (ATTEMPTS - 1) + [WITH_NODE] * (LOST_NODES - 1):
        attempts.count(3, death)
    attempts.end(3)

    assert attempts.count(3, KILLED) == attempts.count(3, WITH_NODE) == ""
