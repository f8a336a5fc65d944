"""Cluster: Ray, started on this machine or connected to; how many trials fit into it."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import ray

from autoprune.errors import InputError
from autoprune.search.on_ray.driver import _tune
from autoprune.search.on_ray.quiet import _local_token, _quiet, _scratch, _signals_interrupt
from autoprune.search.on_ray.settings import _QUIET, OBJECT_STORE_BYTES
from autoprune.search.running.evaluate import OpenEvaluator
from autoprune.study.config import Resources

if TYPE_CHECKING:
    from autoprune.search.running.dispatcher import Runs


class Cluster:
    """Ray, started or connected to in the background: that takes seconds which the driver needs to load the task.

    Args:
        resources: per trial, and how many at a time.
        address: of a running cluster (`auto` finds the one this machine belongs to); None starts Ray on this machine
            and ends it when the context does.
    """

    def __init__(self, resources: Resources, address: str | None = None) -> None:
        self.resources, self.address = resources, address
        self._stack = ExitStack()
        self._error: BaseException | None = None
        self._up, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, name="ray_hold", daemon=True)

    def __enter__(self) -> Self:
        self._stack.enter_context(_quiet())
        self.folder = self._stack.enter_context(_scratch())
        if self.address is None:
            self._stack.enter_context(_local_token())
        self._stack.callback(self._thread.join)
        self._stack.callback(self._leave.set)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def ready(self) -> None:
        """Wait until Ray is up.

        Raises:
            InputError: nothing answers at the address, or no node has what one trial needs.
        """
        self._up.wait()
        if self._error is not None:
            raise self._error
        _slots(self.resources, self.address)

    def run(self, session: Runs, open_evaluator: OpenEvaluator) -> None:
        """Run recipes until the session hands out no more.

        Args:
            session: hands out recipes, takes in outcomes.
            open_evaluator: called once in each worker process.
        """
        self.ready()
        slots, left = _slots(self.resources, self.address), session.remaining()
        workers = max(1, min(slots, self.resources.workers or slots, slots if left is None else left))
        with _signals_interrupt(session):
            _tune(session, open_evaluator, workers, self.folder)

    def _hold(self) -> None:
        """Start Ray, and end it in the same thread: Linux kills Ray's processes when the thread that made them ends."""
        try:
            if self.address is None:
                _start_here(self.folder, self.resources)
            else:
                _connect(self.address)
        except BaseException as error:  # noqa: BLE001 - raised again where somebody waits for it
            self._error = error
        self._up.set()
        self._leave.wait()
        ray.shutdown()


def _connect(address: str) -> None:
    where, allowed = f"--address {address}", "auto, or HOST:PORT of the head"
    if "://" in address:
        raise InputError("a Ray client address", where=where, allowed=allowed)
    host, _, port = address.rpartition(":")
    try:
        if port.isdecimal():
            socket.create_connection((host, int(port)), timeout=5).close()  # Ray itself tries for minutes
        ray.init(address=address, **_QUIET)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"no Ray cluster answers: {error}", where=where, allowed=allowed) from None


def _start_here(folder: Path, resources: Resources) -> None:
    """Start Ray with as many slots as the search needs."""
    workers = resources.workers or _local_workers(resources)
    ray.init(
        num_cpus=workers * resources.cpus_per_trial,
        num_gpus=_local_gpus(resources) if resources.gpus_per_trial else 0,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=str(folder / "ray"),
        **_QUIET,
    )


def _slots(resources: Resources, address: str | None) -> int:
    """How many trials fit at the same time; a trial lives on one node."""
    needs = {"CPU": float(resources.cpus_per_trial), "GPU": resources.gpus_per_trial}
    needs = {kind: amount for kind, amount in needs.items() if amount}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    slots = sum(int(min(node.get(kind, 0.0) / amount for kind, amount in needs.items())) for node in nodes)
    if slots == 0:
        wanted = " and ".join(f"{amount:g} {kind}" for kind, amount in needs.items())
        where = "this machine" if address is None else "the cluster"
        raise InputError(f"no node of {where} has the {wanted} that a trial needs", where="resources")
    return slots


def _local_workers(resources: Resources) -> int:
    by_cpu = max(1, len(os.sched_getaffinity(0)) // resources.cpus_per_trial)
    if not resources.gpus_per_trial:
        return by_cpu
    return max(1, min(by_cpu, int(_local_gpus(resources) / resources.gpus_per_trial)))


def _local_gpus(resources: Resources) -> int:
    import torch

    count = torch.cuda.device_count()
    if count < resources.gpus_per_trial:
        raise InputError(
            f"a trial needs {resources.gpus_per_trial:g} GPUs, this machine has {count}",
            where="resources.gpus_per_trial",
            allowed="0 trains on the CPU; --address for a cluster",
        )
    return count
