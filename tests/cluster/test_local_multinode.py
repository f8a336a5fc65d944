"""local_multinode: real Ray nodes on this machine, a search on them, and an end that is theirs alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from launching import Place, free_port, left_over, place, processes_with

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # twice what they take where every core has three processes


class Nodes:
    """The script, filled in for `nodes` nodes."""

    def __init__(self, where: Place, nodes: int) -> None:
        self.where, self.port = where, free_port(above=nodes + 4)
        self.script = where.write(
            "local_multinode", f"nodes-{self.port}.sh", {"nodes": nodes, "gpus": 2, "port": self.port}
        )
        self.folder = f"/tmp/autoprune-nodes-{os.getuid()}-{self.port}"

    def run(self, *words: str, code: int = 0) -> str:
        return self.where.run(self.script, *words, code=code)

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([str(self.script), *words], stdout=subprocess.DEVNULL, **self.where.where())


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return place(tmp_path, workers=3, trials=5)


@pytest.fixture
def make_nodes(here: Place) -> Iterator[Callable[[int], Nodes]]:
    """The script for so many nodes, not started yet; they are ended after the test."""
    with ExitStack() as stack:

        def make(count: int) -> Nodes:
            made = Nodes(here, count)
            stack.callback(made.run, "stop")
            return made

        yield make


def gpus_of_nodes(where: Place, nodes: Nodes) -> dict[str, set[str]]:
    """Node -> the GPUs that a task on it is given. They need not exist: Ray counts them and looks at none."""
    code = f"""
import os, ray
ray.init(address="127.0.0.1:{nodes.port}", log_to_driver=False)
given = ray.remote(num_cpus=0, num_gpus=2)(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
for node in "123":
    print("node", node, ray.get(given.options(resources={{f"node_{{node}}": 0.1}}).remote()))
"""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": f"{nodes.folder}/token"}
    asked = replace(where, environment={**where.environment, **token})
    said = re.findall(r"^node (\d) (\S+)$", asked.run(sys.executable, "-c", code), re.MULTILINE)
    return {node: set(gpus.split(",")) for node, gpus in said}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 150
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.2)


def test_a_search_on_every_node_of_which_one_is_lost_and_another_one_joins(
    here: Place, make_nodes: Callable[[int], Nodes]
) -> None:
    nodes, others = make_nodes(3), make_nodes(1)
    assert f"3 Ray nodes at 127.0.0.1:{nodes.port}" in nodes.run("start")
    others.run("start")
    assert gpus_of_nodes(here, nodes) == {"1": {"0", "1"}, "2": {"2", "3"}, "3": {"4", "5"}}
    search = nodes.begin("search", "s.yaml", "--trials", "500", "--out", "study")
    wait_until(lambda: here.nodes() == 3 and len(here.outcomes("study")) > 0, "not every node has a worker")
    assert nodes.run("kill", "3") == "node 3 is gone\n"
    assert nodes.run("add") == "node 3 has joined\n"
    ended = len(here.outcomes("study"))
    wait_until(lambda: here.nodes() == 4 and len(here.outcomes("study")) > ended, "the new node has no worker")
    search.send_signal(signal.SIGTERM)

    assert search.wait(timeout=120) == 1  # the search's own code: it was stopped, and says how to resume
    assert set(here.outcomes("study").values()) == {"completed"}
    assert "the nodes are running" in nodes.run("start", code=1)
    nodes.run("stop")
    assert left_over(nodes.folder) == []
    assert len(processes_with(others.folder)) > 1
    others.run("stop")
    assert left_over(others.folder) == []
    assert not Path(nodes.folder).exists()


@pytest.mark.long
def test_a_signal_to_the_script_ends_the_search_in_order_and_the_nodes(
    here: Place, make_nodes: Callable[[int], Nodes]
) -> None:
    nodes = make_nodes(2)
    search = nodes.begin("search", "s.yaml", "--trials", "500", "--out", "study")
    wait_until(lambda: len(here.outcomes("study")) >= 1, "no recipe has ended")
    search.send_signal(signal.SIGTERM)

    assert search.wait(timeout=120) == 1
    assert left_over(nodes.folder) == []
    ended = len(here.outcomes("study"))
    assert 1 <= ended < 500
    nodes.run("resume", "study", "--trials", str(ended + 2))
    assert len(here.outcomes("study")) >= ended + 2  # and what was running is run again
    assert set(here.outcomes("study").values()) == {"completed"}
    assert left_over(nodes.folder) == []
    assert not Path(nodes.folder).exists()


def test_what_cannot_be_done_is_said_in_one_line(here: Place, make_nodes: Callable[[int], Nodes]) -> None:
    nodes = make_nodes(2)
    assert "start, stop, add, kill NODE, or a command of autoprune" in nodes.run(code=2)
    assert "no nodes are running" in nodes.run("add", code=1)
    assert "no node 2 is running" in nodes.run("kill", "2", code=2)
    Path(nodes.folder).symlink_to(here.folder)
    try:
        assert "is not a folder of yours" in nodes.run("start", code=1)
    finally:
        Path(nodes.folder).unlink()
