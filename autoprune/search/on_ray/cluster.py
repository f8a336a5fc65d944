"""A Ray cluster: started on this machine or connected to, and how many trials fit into it at the same time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import starmap
from pathlib import Path

import ray
from ray._private import ray_constants
from ray._private.utils import read_ray_address

from autoprune.errors import InputError
from autoprune.search.on_ray.settings import OBJECT_STORE_BYTES, QUIET_INIT
from autoprune.study.config import AUTO, Resources

GIB = 2**30


def connect(address: str) -> str | None:
    """Connect to a running cluster.

    Args:
        address: `auto`, for the cluster that $RAY_ADDRESS or the last `ray start` on this machine names, or HOST:PORT.

    Returns:
        Where its dashboard is, if one runs.

    Raises:
        InputError: nothing answers there.
    """
    where, allowed = f"--address {address}", "auto, or HOST:PORT of the head"
    if address == "auto":
        address = _announced_address()
    if not address:
        raise InputError(
            "no Ray cluster answers: `ray start` has left no address on this machine", where=where, allowed=allowed
        )
    if "://" in address:
        raise InputError("a Ray client address", where=where, allowed=allowed)
    host, _, port = address.rpartition(":")
    try:
        if port.isdecimal():
            socket.create_connection((host, int(port)), timeout=5).close()  # Ray itself tries for minutes
        dashboard = ray.init(address=address, **QUIET_INIT).dashboard_url
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"no Ray cluster answers: {error}", where=where, allowed=allowed) from None
    return f"http://{dashboard}" if dashboard else None


def _announced_address() -> str:
    """What Ray's own `auto` looks for first; empty if there is none.

    It goes on to any Ray on this machine, such as that of another search, which lets nobody in: it waited for minutes.
    """
    return os.environ.get("RAY_ADDRESS") or read_ray_address(None) or ""


def start_on_this_machine(folder: Path, resources: Resources) -> None:
    """Start Ray with as many slots as the search needs; it writes into the folder, and no other machine can reach it.

    Raises:
        InputError: this machine has fewer GPUs than one trial needs.
    """
    workers = resources.workers or _count_local_workers(resources)
    gpus = _count_local_gpus(resources) if resources.gpus else 0
    with _on_loopback():
        ray.init(
            num_cpus=workers * resources.processes * resources.cpus_per_process,
            num_gpus=gpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(folder / "ray"),
            **QUIET_INIT,
        )


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray that starts in the block listens on 127.0.0.1 alone, as it does everywhere but on Linux.

    There its servers listen on every network, and who reaches them can run code; tokens guard them only since Ray 2.59.
    `_node_ip_address="127.0.0.1"` does not help: Ray replaces it by the address that other machines see.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def count_slots(resources: Resources, address: str | None) -> int:
    """How many trials fit at the same time; a process lives on one node, those of a trial on as few as possible.

    Raises:
        InputError: not a single one.
    """
    needs = needs_of_process(resources)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    places = sum(int(min(node.get(kind, 0.0) / amount for kind, amount in needs.items())) for node in nodes)
    if places < resources.processes:
        raise InputError(_too_small(resources, places, address), where="resources")
    return places // resources.processes


def needs_of_process(resources: Resources) -> dict[str, float]:
    """What one of a trial's processes needs of a node, as Ray calls it."""
    needs = {"CPU": float(resources.cpus_per_process), "GPU": resources.gpus_per_process}
    if not resources.gpus:  # Ray knows nothing of a GPU's memory
        needs["memory"] = int((resources.memory_per_process or 0) * GIB)
    return {kind: amount for kind, amount in needs.items() if amount}


def _too_small(resources: Resources, places: int, address: str | None) -> str:
    where = "this machine" if address is None else "the cluster"
    wanted = " and ".join(starmap(_describe_need, needs_of_process(resources).items()))
    if resources.processes == 1:
        return f"no node of {where} has the {wanted} that a trial needs"
    return f"{where} has room for {places} of a trial's {resources.processes} processes, each of {wanted}"


def _describe_need(kind: str, amount: float) -> str:
    return f"{amount / GIB:g} GiB of memory" if kind == "memory" else f"{amount:g} {kind}"


def _count_local_workers(resources: Resources) -> int:
    by_cpu = max(1, len(os.sched_getaffinity(0)) // (resources.processes * resources.cpus_per_process))
    if resources.gpus_per_trial in (0, AUTO):
        return by_cpu
    return max(1, min(by_cpu, int(_count_local_gpus(resources) / resources.gpus)))


def check_local_gpus(resources: Resources) -> None:
    """Raise `InputError` if this machine has fewer GPUs than one trial needs."""
    if resources.gpus:
        _count_local_gpus(resources)


def _count_local_gpus(resources: Resources) -> int:
    import torch

    count = torch.cuda.device_count()
    if count < resources.gpus:
        raise InputError(
            f"a trial needs {resources.gpus:g} GPUs, this machine has {count}",
            where="resources.gpus_per_trial",
            allowed="0 trains on the CPU; --address for a cluster",
        )
    return count
