"""The search on Ray Tune: one Tune trial is one recipe, run by actors that live as long as the search.

Measured with Ray 2.60 on two cores: 2 to 3 s between trials with a fresh actor each, 60 ms with actors that stay. With
these, trials shorter than the spread of the actors' start times starve actors that are still starting (9 of 64 came
up); the start barrier and the newest-first scheduler prevent that.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TextIO

from autoprune.errors import InputError
from autoprune.results import Outcome, Proposal, Rung
from autoprune.search.evaluate import (
    Evaluation,
    Evaluator,
    Leg,
    OpenEvaluator,
    StudyClock,
    describe,
    failed,
    fill,
    read_files,
    run_leg,
    write_files,
)
from autoprune.space import Resources
from autoprune.store import FolderStore

if TYPE_CHECKING:
    from autoprune.search.runs import Runs

# Ray and Tune read these when they are imported or started.
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files: half of Tune's time per trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours stops the same way and says how to resume
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # the study folder is the only truth: nothing is ever restored from Tune's
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths in a space file mean the same in every process
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints every crash, whatever the verbosity
    "RAY_USAGE_STATS_ENABLED": "0",
}
os.environ.update({key: value for key, value in _SETTINGS.items() if key not in os.environ})

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations inside Ray are not the user's to mend
    import ray
    from ray import tune
    from ray.tune.schedulers import FIFOScheduler
    from ray.tune.search import Searcher
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

#: A worker whose fellows have not come up by then starts without them.
BARRIER_SECONDS = 60.0
#: A recipe whose worker process dies is tried this many times in all.
ATTEMPTS = 3
OBJECT_STORE_BYTES = 128 * 2**20
TIMED_OUT = 42
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


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


def _tune(session: Runs, open_evaluator: OpenEvaluator, workers: int, folder: Path) -> None:
    resources = session.config.resources
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)
    adapter = _Adapter(session)
    bound = tune.with_parameters(
        RecipeTrainable,
        open_evaluator=open_evaluator,
        clock=session.clock,
        desk=_open_desk(session.models, session.states, session.folder.shared, workers),
        trial_timeout=60 * resources.trial_timeout_minutes,
    )
    tuner = tune.Tuner(
        tune.with_resources(bound, {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}),
        tune_config=tune.TuneConfig(
            search_alg=adapter,
            scheduler=NewestFirst(),
            num_samples=-1,
            max_concurrent_trials=workers,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=tempfile.mkdtemp(prefix="tune-", dir=folder),
            verbose=0,
            callbacks=[_Watcher(adapter)],
            stop=_Stopper(session),
            failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuner.fit()
    if not session.interrupted:
        for leg in list(adapter.live.values()):
            session.lost(leg.proposal, "stopped", "the search's time was over")


# -- in the workers ------------------------------------------------------------------------------------------------


class Desk:
    """A small actor on the driver's machine that the workers talk to: start barrier, attempts, models, paused recipes.

    Files come and go as bytes, so driver and workers need no file system in common.
    """

    def __init__(self, models: str, states: str, shared: str, workers: int) -> None:
        self.models, self.states, self.shared = Path(models), Path(states), FolderStore(Path(shared))
        self.workers = workers
        self.arrived = 0
        self.expired: set[int] = set()

    def arrive(self) -> None:
        """A worker is up."""
        self.arrived += 1

    def complete(self) -> bool:
        """Whether all workers are up."""
        return self.arrived >= self.workers

    def arrivals(self) -> int:
        """How many workers ever came up; more than there are slots means some had to be replaced."""
        return self.arrived

    def has_expired(self, number: int) -> bool:
        """Whether an earlier attempt at this recipe took too long."""
        return number in self.expired

    def expire(self, number: int) -> None:
        """An attempt at this recipe took too long; its worker is about to end itself."""
        self.expired.add(number)

    def store(self, number: int, files: Mapping[str, bytes]) -> None:
        """Write a model into the study folder."""
        write_files(self.models, number, files)

    def pause(self, number: int, files: Mapping[str, bytes]) -> None:
        """Write what a paused recipe goes on from into the study folder."""
        write_files(self.states, number, files)

    def paused(self, number: int) -> dict[str, bytes]:
        """What a paused recipe goes on from."""
        return read_files(self.states / str(number))

    def get(self, key: str) -> bytes | None:
        """What some worker found, see `store`."""
        return self.shared.get(key)

    def put(self, key: str, content: bytes) -> None:
        """A worker has found something that others will need."""
        self.shared.put(key, content)


class DeskStore:
    """The study's store, from a worker."""

    def __init__(self, desk: Any) -> None:
        self.desk = desk

    def get(self, key: str) -> bytes | None:
        """What was put under the key, by whichever worker."""
        found: bytes | None = ray.get(self.desk.get.remote(key))
        return found

    def put(self, key: str, content: bytes) -> None:
        """Keep it for the others."""
        ray.get(self.desk.put.remote(key, content))


class RecipeTrainable(tune.Trainable):
    """One actor that runs recipes; task, data and dense model are loaded once, in `setup`."""

    def setup(
        self,
        config: dict[str, Any],
        open_evaluator: OpenEvaluator,
        clock: StudyClock,
        desk: Any,
        trial_timeout: float,
    ) -> None:
        """Open the evaluator and wait for the other workers."""
        self.request, self.clock, self.desk, self.trial_timeout = config, clock, desk, trial_timeout
        self.evaluator, self.refusal = None, ""
        try:
            self.evaluator = open_evaluator(clock, DeskStore(desk))
        except Exception as error:  # noqa: BLE001 - a worker that raises here is started again and again, without end
            self.refusal = f"the worker on {socket.gethostname()} cannot load the task: {describe(error)}"
        ray.get(desk.arrive.remote())
        end = time.monotonic() + BARRIER_SECONDS
        while not ray.get(desk.complete.remote()) and time.monotonic() < end:
            time.sleep(0.05)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next recipe."""
        self.request = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Run the recipe; models go to the desk before the outcome goes to the driver."""
        leg = Leg.from_plain(self.request)
        proposal = leg.proposal
        if self.refusal or self.evaluator is None:
            return self._refuse(proposal, self.refusal)
        if ray.get(self.desk.has_expired.remote(proposal.id)):
            minutes = self.trial_timeout / 60
            return self._refuse(proposal, f"no end after {minutes:g} minutes (resources.trial_timeout_minutes)")
        with self._watchdog(proposal.id):
            return self._result(self._run(self.evaluator, leg).outcome)

    def _run(self, evaluator: Evaluator, leg: Leg) -> Evaluation:
        number = leg.proposal.id
        with tempfile.TemporaryDirectory(prefix="autoprune-trial-") as folder:
            if leg.resumed:
                fill(Path(folder), ray.get(self.desk.paused.remote(number)))
            evaluation = run_leg(evaluator, leg, self._report, self.clock, Path(folder), _worker())
            if evaluation.outcome.status == "paused":
                ray.get(self.desk.pause.remote(number, read_files(Path(folder))))
        if evaluation.files:
            ray.get(self.desk.store.remote(number, dict(evaluation.files)))
        return evaluation

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: a recipe that is cut short starts again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""

    def _report(self, _rung: Rung, _ratios: Mapping[str, float]) -> bool:
        until = self.request["until"]
        return until is None or self.clock.now() < until

    def _result(self, outcome: Outcome) -> dict[str, Any]:
        return {"outcome": replace(outcome, worker=_worker()).to_json(), "done": True}

    def _refuse(self, proposal: Proposal, error: str) -> dict[str, Any]:
        now = self.clock.now()
        return self._result(failed(proposal, error, started=now, finished=now).outcome)

    @contextmanager
    def _watchdog(self, number: int) -> Iterator[None]:
        """End this process if a recipe hangs: Tune waits for ever. The next attempt hears of it from the desk."""

        def end() -> None:
            ray.get(self.desk.expire.remote(number))
            os._exit(TIMED_OUT)

        timer = threading.Timer(self.trial_timeout, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _worker() -> str:
    """What reports call this process."""
    return f"{socket.gethostname()}:{os.getpid()}"


# -- in the driver -------------------------------------------------------------------------------------------------


class NewestFirst(FIFOScheduler):
    """Gives a free actor to the newest waiting trial.

    Tune gives it to the oldest one, whose own actor is still starting, and then kills that actor; with short trials the
    pool never grows.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The pending trial that was made last."""
        for trial in reversed(tune_controller.get_trials()):
            if trial.status == "PENDING":
                return trial
        return None

    def set_search_properties(self, *_metric_and_mode: Any, **_spec: Any) -> bool:
        """Accept anything: this scheduler looks at no metric."""
        return True


class _Adapter(Searcher):
    """The session as a Tune searcher. Tune pickles its searchers into its own snapshot, where this one has no state."""

    def __init__(self, session: Runs) -> None:
        super().__init__()
        self.session = session
        self.live: dict[str, Leg] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def set_search_properties(self, *_metric_mode_config: Any, **_spec: Any) -> bool:
        """Accept anything: the objectives are the session's business."""
        return True

    def suggest(self, trial_id: str) -> Any:
        leg = self.session.next()
        if leg is not None:
            self.live[trial_id] = leg
            return {**leg.to_plain(), "until": self.session.limits.until}
        # final: Tune waits for the running trials, and that is all; None: there may be more when one of them pauses
        return Searcher.FINISHED if self.session.finished_handing_out() else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error or not result or "outcome" not in result:
            return
        self.live.pop(trial_id, None)
        self.session.ended(Outcome.from_json(result["outcome"]))

    def crashed(self, trial_id: str, reason: str) -> None:
        """Tune has given up on a trial. What a method raises is an outcome, so the process itself came to its end."""
        leg = self.live.pop(trial_id, None)
        if leg is not None and not self.session.interrupted:
            self.session.lost(leg.proposal, "failed", f"the worker process died {ATTEMPTS} times: {reason}")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the logs in the study folder are the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore from."""


class _Watcher(tune.Callback):
    """Tells the session of crashed trials and of the passing of time."""

    def __init__(self, adapter: _Adapter) -> None:
        self.adapter = adapter

    def on_step_end(self, **_info: Any) -> None:
        self.adapter.session.refresh()

    def on_trial_error(self, trial: Any, **_info: Any) -> None:
        self.adapter.crashed(trial.trial_id, _why_dead(trial.error_file))


class _Stopper(tune.Stopper):
    """Ends everything at once when the user says so, and when running trials had their grace and do not report."""

    def __init__(self, session: Runs) -> None:
        self.session = session

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, *_trial_and_result: Any) -> bool:
        """No trial is stopped by its result."""
        return False

    def stop_all(self) -> bool:
        """Whether the search is over."""
        return self.session.over()


def _why_dead(error_file: str) -> str:
    """The exception that ended a worker, as far as Ray knows: one that could not start says why, a crash does not."""
    text = Path(error_file).read_text(encoding="utf-8", errors="replace")
    said = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception): .+)$", text, re.MULTILINE)
    return said[-1][:300] if said else "it crashed, was killed for lack of memory, or its node went away"


def _open_desk(models: Path, states: Path, shared: Path, workers: int) -> Any:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    desk = ray.remote(Desk).options(num_cpus=0, scheduling_strategy=here)
    return desk.remote(str(models.resolve()), str(states.resolve()), str(shared.resolve()), workers)


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


#: One for the life of this process: Ray remembers the first one it saw.
_TOKEN = secrets.token_hex(32)


@contextmanager
def _local_token() -> Iterator[None]:
    """Guard a local Ray by a token that no file holds; unless it is given one, Ray writes one into the home folder."""
    if {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        yield
        return
    os.environ["RAY_AUTH_TOKEN"] = _TOKEN  # with a token at hand Ray switches the guard on by itself
    try:
        yield
    finally:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            os.environ.pop(name, None)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for what Ray and Tune write, removed at the end. Sockets lie in it: its path must stay short."""
    base = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="autoprune-", dir=base if len(base) < 24 else "/tmp"))  # noqa: S108
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # Ray's last processes may still be writing their logs


class _WithoutRay(io.TextIOBase):
    """A stream without what Ray's threads print, the one that holds it (`Cluster`) included: their names say so."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        return len(text) if threading.current_thread().name.startswith("ray_") else self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()

    @property
    def closed(self) -> bool:
        return self.stream.closed

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's chatter about dead workers off the terminal; they become outcomes, with their error."""
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(_WithoutRay(sys.stdout)):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _signals_interrupt(session: Runs) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the session; a second one ends the process as usual."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        session.interrupted = True
        restore()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        restore()
