"""Slots of a cluster by hand, and addresses that cannot be connected to; nothing here starts Ray."""

import pytest
import ray

from autoprune.errors import InputError
from autoprune.search.on_ray.cluster import connect, count_slots
from autoprune.study.config import Resources


@pytest.fixture
def nodes(monkeypatch):
    """Two nodes with 7 and 3 cores, of which the second has 2 GPUs, and one that has gone."""
    alive = [{"CPU": 7.0}, {"CPU": 3.0, "GPU": 2.0}]
    found = [{"Alive": True, "Resources": resources} for resources in alive]
    found.append({"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}})
    monkeypatch.setattr(ray, "nodes", lambda: found)


@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize(
    ("cpus", "gpus", "slots"),
    [(1, 0.0, 10), (2, 0.0, 3 + 1), (4, 0.0, 1), (1, 1.0, 2), (1, 0.5, 3), (2, 0.5, 1), (1, 2.0, 1)],
)
def test_a_trial_lives_on_one_node(cpus, gpus, slots):
    assert count_slots(Resources(cpus_per_trial=cpus, gpus_per_trial=gpus), None) == slots


@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize(("address", "where"), [(None, "this machine"), ("auto", "the cluster")])
def test_a_trial_that_fits_on_no_node_is_refused(address, where):
    with pytest.raises(InputError, match=f"resources: no node of {where} has the 8 CPU and 0.5 GPU that a trial needs"):
        count_slots(Resources(cpus_per_trial=8, gpus_per_trial=0.5), address)


def test_the_address_of_a_ray_client_is_refused():
    with pytest.raises(InputError, match=r"--address ray://head:1: a Ray client address; allowed: auto, or HOST:PORT"):
        connect("ray://head:1")
