"""onprem: head and worker really started, as two Ray nodes of this machine, with a search on both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import Place, free_port, place, processes_with

pytestmark = pytest.mark.slow

#: A node of many on one machine; on a machine of its own Ray's defaults are right.
SMALL = ("--num-cpus=1", "--object-store-memory=100000000", "--min-worker-port=0", "--max-worker-port=0")


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return place(tmp_path, workers=2, trials=5)


@pytest.fixture
def scripts(here: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The script as it lies on two machines."""
    token, port = here.folder / "token", free_port()
    made = []
    for number in (1, 2):
        folder = f"/tmp/autoprune-onprem-{port}-{number}"  # short: Ray's sockets lie in it
        made.append(here.write("onprem", f"machine{number}.sh", {"port": port, "token": token, "folder": folder}))
    yield made[0], made[1]
    for script, number in zip(made, (1, 2), strict=True):
        folder = f"/tmp/autoprune-onprem-{port}-{number}"
        if processes_with(folder):
            here.run(script, "stop")
        shutil.rmtree(folder, ignore_errors=True)  # Ray's logs, which the script keeps


@pytest.mark.long  # test_local_multinode searches on nodes that are started so too
def test_a_search_on_two_machines(here: Place, scripts: tuple[Path, Path]) -> None:
    head, worker = scripts
    assert "no token at" in here.run(worker, "worker", "127.0.0.1", code=2)
    said = here.run(head, "head", "127.0.0.1", *SMALL)
    assert said.endswith(f"then there: {head} worker 127.0.0.1\n")
    assert (here.folder / "token").stat().st_mode & 0o077 == 0
    here.run(worker, "worker", "127.0.0.1", *SMALL)
    assert "running already" in here.run(worker, "worker", "127.0.0.1", code=2)

    here.run(head, "search", "s.yaml", "--out", "study")

    assert here.outcomes("study") == dict.fromkeys(range(5), "completed")
    assert here.nodes() == 2
    here.run(worker, "stop")
    here.run(head, "stop")
    assert "no node is running here" in here.run(head, "resume", "study", code=2)


def test_what_is_missing_is_said(here: Place, scripts: tuple[Path, Path]) -> None:
    head, _ = scripts

    assert "head ADDRESS, worker ADDRESS, search" in here.run(head, code=2)
    assert "the address of the first machine is missing" in here.run(head, "head", code=2)
    assert "no node of this script's is running here" in here.run(head, "stop", code=2)
