"""Slots of a cluster by hand, addresses that cannot be connected to, and who can reach a Ray that a search starts."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import ray

from autoprune.errors import InputError
from autoprune.search.on_ray.cluster import connect, count_slots
from autoprune.search.on_ray.executor import RayExecutor
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
    [(1, 0.0, 10), (2, 0.0, 3 + 1), (4, 0.0, 1), (1, 1.0, 2), (1, 0.5, 3), (2, 0.5, 1)],
)
def test_a_process_lives_on_one_node(cpus, gpus, slots):
    assert count_slots(Resources(cpus_per_trial=cpus, gpus_per_trial=gpus), None) == slots


@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize(
    ("processes", "cpus", "gpus", "slots"),
    [
        (2, 2, 0.0, 5),  # 7 + 3 places
        (3, 6, 0.0, 1),  # 3 + 1 places of two cores
        (2, 1, 2.0, 1),  # two GPUs of one node
        (4, 1, 2.0, 0),  # 3 places of half a GPU and a core
    ],
)
def test_the_processes_of_a_trial_live_on_several_nodes_if_need_be(processes, cpus, gpus, slots):
    resources = Resources(processes_per_trial=processes, cpus_per_trial=cpus, gpus_per_trial=gpus)
    if slots:
        assert count_slots(resources, None) == slots
        return
    what = "resources: the cluster has room for 3 of a trial's 4 processes, each of 1 CPU and 0.5 GPU"
    with pytest.raises(InputError, match=what):
        count_slots(resources, "auto")


@pytest.mark.parametrize(("gib", "processes", "slots"), [(5.0, 1, 3 + 1), (5.0, 2, 5), (24.0, 3, 1)])
def test_a_process_has_its_memory_on_its_node(monkeypatch, gib, processes, slots):
    nodes = [{"CPU": 7.0, "memory": 18.0 * 2**30}, {"CPU": 3.0, "memory": 9.0 * 2**30, "GPU": 1.0}]
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": each} for each in nodes])

    assert count_slots(Resources(memory_per_trial=gib, processes_per_trial=processes), None) == slots
    assert count_slots(Resources(memory_per_trial=900.0, gpus_per_trial=0.5), None) == 2  # the GPU's, unknown to Ray
    with pytest.raises(InputError, match=r"has the 1 CPU and 18\.5 GiB of memory that a trial needs"):
        count_slots(Resources(memory_per_trial=18.5), None)


@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize(("address", "where"), [(None, "this machine"), ("auto", "the cluster")])
def test_a_trial_that_fits_on_no_node_is_refused(address, where):
    with pytest.raises(InputError, match=f"resources: no node of {where} has the 8 CPU and 0.5 GPU that a trial needs"):
        count_slots(Resources(cpus_per_trial=8, gpus_per_trial=0.5), address)


def test_the_address_of_a_ray_client_is_refused():
    with pytest.raises(InputError, match=r"--address ray://head:1: a Ray client address; allowed: auto, or HOST:PORT"):
        connect("ray://head:1")


@pytest.mark.parametrize(("found", "url"), [("127.0.0.1:8265", "http://127.0.0.1:8265"), ("", None), (None, None)])
def test_a_cluster_says_where_its_dashboard_is(monkeypatch, found, url):
    asked = []
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options) or SimpleNamespace(dashboard_url=found))
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: socket.socket())
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")

    assert connect("auto") == url
    assert asked[0]["address"] == "10.0.0.1:6379"


def version(text):
    return tuple(int(part) for part in text.split(".")[:2])


@ray.remote
def listening_addresses():
    """Where the process of a worker, Ray's own processes and the driver wait for connections."""
    import psutil  # Ray brings its own

    raylet = psutil.Process().parent()
    driver = raylet.parent()
    family = {process.pid for process in (driver, *driver.children(recursive=True))}
    found = [socket for socket in psutil.net_connections("inet") if socket.pid in family]
    return [socket.laddr.ip.removeprefix("::ffff:") for socket in found if socket.status == psutil.CONN_LISTEN]


@pytest.fixture(scope="module")
def local_ray():
    """The address of a Ray that a search has started on this machine."""
    with RayExecutor(Resources(workers=1)) as executor:
        executor.wait_until_ready()
        yield ray.get_runtime_context().gcs_address


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_local_ray_cannot_be_reached_from_another_machine():
    addresses = ray.get(listening_addresses.remote())

    assert len(addresses) >= 3  # of the driver, the raylet and the worker at least
    assert set(addresses) == {"127.0.0.1"}


JOIN = """
import sys
import ray
from ray._private import ray_constants
ray_constants.ENABLE_RAY_CLUSTER = False  # look for it on the loopback, where it is
ray.init(sys.argv[1], logging_level="CRITICAL")
print(len(ray.nodes()))
"""


def join(address, token):
    """What another process of this machine is answered that comes with a token."""
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return subprocess.run([sys.executable, "-c", JOIN, address], env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(version(ray.__version__) < (2, 59), reason="Ray asks for tokens since 2.59")
def test_a_local_ray_refuses_who_has_another_token(local_ray):
    knows, guesses = join(local_ray, os.environ["RAY_AUTH_TOKEN"]), join(local_ray, 64 * "0")

    assert (knows.returncode, knows.stdout) == (0, "1\n")
    assert (guesses.returncode, guesses.stdout) == (1, "")
    assert "InvalidAuthToken" in guesses.stderr
