"""Evaluators that need no task: an accuracy by formula, after as many seconds as wanted, and every way to fail."""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoprune.recipe import MethodChoice, Recipe, Target, Training
from autoprune.search.running import in_process
from autoprune.search.running.evaluator import Evaluation
from autoprune.search.running.final_retraining import FinalRetraining, continued_clock
from autoprune.search.running.limits import Limits
from autoprune.search.running.session import Session
from autoprune.study.config import Budget, Halving, Resources, Sampler, StudyConfig
from autoprune.study.finalists import to_train
from autoprune.study.folder import StudyFolder, load_study
from autoprune.study.outcome import Outcome, Proposal, Rung
from autoprune.study.space import Space

GROUPS = [("stem", 0), ("layer1.0.conv1", 0), ("layer2.0.conv1", 1)]
METHODS = ("l1", "l2", "fpgm", "bn_scale", "taylor")
SPACE = {
    "method": {
        "choice": {**{name: {} for name in METHODS}, "bn_scale": {"penalty": {"float": [1e-5, 1e-3], "log": True}}}
    },
    "target": {"flops": {"float": [0.1, 0.8]}},
    "allocation": {"choice": {"uniform": {}, "ratios": {"ratios": {"each": "stage", "float": [0.1, 1]}}}},
    "training": {"lr": {"float": [0.001, 0.1], "log": True}},
}


def bound_space(plain=SPACE):
    return Space.read(plain).bind(GROUPS)


def completed(proposal, accuracy=None, **rest):
    """Accuracy falls with the square root of the cost; every method has its own loss."""
    recipe = proposal.recipe
    ratio = recipe.target.flops or 1.0
    fields = {
        "status": "completed",
        "metric": ratio**0.5 - len(recipe.method.name) / 30 if accuracy is None else accuracy,
        "flops_ratio": ratio,
        "params_ratio": ratio,
        "activations_ratio": ratio,
    }
    return Outcome(id=proposal.id, recipe=recipe, control=proposal.control, **{**fields, **rest})


def proposal(number, *, flops=0.5, images=1000, control=False):
    recipe = Recipe(method=MethodChoice(name="l1"), target=Target(flops=flops), training=Training(images=images))
    return Proposal(id=number, recipe=recipe, control=control)


def measured(number, *rungs, control=False, accuracy=0.5, flops=0.5, images=1100, **rest):
    """An outcome with rungs, each as (share, images, seconds)."""
    found = tuple(Rung(share=s, images=n, metric=0.5, seconds=t) for s, n, t in rungs)
    seconds = {"finetune": rungs[-1][2]} if rungs else {}
    origin = proposal(number, flops=flops, images=images, control=control)
    return completed(origin, accuracy, rungs=found, seconds=seconds, **rest)


def final_numbers(proposal):
    """The higher the seed, the better on validation and the worse on the test split: a mix-up of the two shows.

    Nothing is above 1 for seeds below ten.
    """
    ratio, seed = proposal.recipe.target.flops or 1.0, proposal.recipe.seed
    return {"accuracy": ratio**0.5 - 0.01 + 0.001 * seed, "test_metric": 0.5 - 0.01 * seed}


@dataclass(frozen=True)
class Fake:
    """Sleeps, writes a line that says that it ran, and answers by formula, or fails as `trouble` says."""

    clock: object
    seconds: float
    ran: Path | None
    trouble: dict = field(default_factory=dict)
    rungs: tuple[float, ...] = (0.0,)
    final: bool = False
    model_bytes: int = 0

    def run(self, proposal, report, scratch, parent):
        started = self.clock.now()
        if proposal.recipe.parent is not None and not proposal.ancestors:
            assert (parent / "model.json").read_bytes() == b"%d" % proposal.recipe.parent
        if self.ran is not None:
            with self.ran.open("a") as file:
                file.write(f"{proposal.id} {proposal.recipe.key()} {os.getpid()}\n")
        self._fail(self.trouble.get(proposal.id), proposal.recipe.training)
        time.sleep(self.seconds)
        *passed, stopped = self._climb(proposal, report, scratch)
        fields = {"started": started, "finished": self.clock.now(), "seconds": {"all": passed[-1].seconds}}
        if stopped:
            short = completed(proposal, **fields, rungs=tuple(passed), status="stopped")
            return Evaluation(outcome=replace(short, metric=None))
        accuracy = float("nan") if self.trouble.get(proposal.id) == "nan" else None
        numbers = final_numbers(proposal) if self.final else {"accuracy": accuracy}
        done = completed(proposal, **numbers, **fields, rungs=tuple(passed))
        weights = {"weights": bytes(self.model_bytes)} if self.model_bytes else {}
        return Evaluation(outcome=done, files={"model.json": b"%d" % proposal.id, **weights})

    def _climb(self, proposal, report, scratch):
        """The rungs so far, those of earlier segments included, and whether the last one stopped it.

        The number of passed rungs is all there is to go on from.
        """
        state = scratch / "deep" / "state" if scratch else None
        known = int(state.read_text()) if state and state.exists() else 0
        final = completed(proposal).accuracy
        rungs = [
            Rung(share=share, images=round(1000 * share), metric=final * (1 + share) / 2, seconds=0.1 + share)
            for share in self.rungs
        ]
        for number, rung in enumerate(rungs[known:], known + 1):
            if state:
                state.parent.mkdir(exist_ok=True)
                state.write_text(str(number))
            if not report(rung, {"flops": 0.5}):
                return *rungs[:number], True
        return *rungs, False

    def _fail(self, trouble, training):
        match trouble:
            case "tight" if training.accumulate == 1:
                raise MemoryError
            case "raise":
                raise ValueError("a bad\nshape")
            case "memory":
                raise MemoryError
            case "exit":
                os._exit(7)
            case "hang":
                time.sleep(1000)
            case "gpu":  # an error after which every call of the process fails
                break_gpu("CUDA error: unspecified launch failure")
                raise RuntimeError("CUDA error: unspecified launch failure")
            case "hold":  # in a library that lets no other thread run
                re.match(r"(a+)+$", "a" * 60 + "b")


def break_gpu(fault):
    """Let this worker process have a GPU with a fault."""
    from autoprune.search.on_ray import worker

    worker.gpus_of_this_process, worker.gpu_fault = lambda: ["0"], lambda: fault
    worker.UNUSABLE_GPU_SECONDS = 0.1


@dataclass(frozen=True)
class OpenFake:
    """What the workers get; `without_gpu`: a file for each worker that is to find its GPU unusable."""

    seconds: float = 0.0
    ran: Path | None = None
    trouble: dict = field(default_factory=dict)
    broken: bool = False
    without_gpu: tuple[Path, ...] = ()
    rungs: tuple[float, ...] = (0.0,)
    final: bool = False
    model_bytes: int = 0

    def __call__(self, clock, _store=None):
        if self.broken:
            raise OSError("no data here")
        for file in self.without_gpu:
            try:
                file.unlink()
            except FileNotFoundError:  # another worker has found it so
                continue
            break_gpu("CUDA error: no device")
            raise RuntimeError("CUDA error: no device")
        return Fake(clock, self.seconds, self.ran, self.trouble, self.rungs, self.final, self.model_bytes)


@dataclass(frozen=True)
class Handed:
    """A clock that somebody else winds."""

    now: Callable[[], float]


def run_here(session, *, timeout=60.0, after=None, **options):
    """Run a session to its end in this process; `after` is called after every segment."""
    end_segment = session.end_segment

    def count(outcome):
        end_segment(outcome)
        if after is not None:
            after()

    session.end_segment = count
    in_process.run(session, OpenFake(**options)(session.clock), trial_timeout=timeout)


def stop_after(session, segments):
    """Interrupt the session when that many segments have ended."""
    end_segment = session.end_segment

    def count(outcome):
        nonlocal segments
        end_segment(outcome)
        segments -= 1
        session.interrupted = session.interrupted or segments == 0

    session.end_segment = count


class Notes:
    """A view that keeps what it was shown."""

    def __init__(self):
        self.seen, self.said = [], []

    def say(self, text):
        self.said.append(text)

    def update(self, progress):
        self.seen.append(progress)

    def close(self):
        pass


def study_config(*, trials=6, workers=2, timeout=10.0, startup=4, rungs=(0.0, 1.0), keep=1.0, gpus=0.0, **space):
    training = {**SPACE["training"], "images": 1000, "rungs": list(rungs)}
    return StudyConfig(
        task={},
        space=Space.read({**SPACE, "training": training, **space}),
        cascade=Halving(keep=keep),
        budget=Budget(trials=trials),
        resources=Resources(workers=workers, trial_timeout_minutes=timeout, gpus_per_trial=gpus),
        sampler=Sampler(startup=startup),
    )


def open_session(path, config, *, limits=None, view=None):
    """A session in a folder; the folder is made if it is new."""
    folder = StudyFolder(Path(path))
    if not folder.config.exists():
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.config.write_text(config.to_yaml() + "dense: {accuracy: 0.9375}\n")
    space = config.space.bind(GROUPS)
    return Session(config, space, folder, limits=limits or Limits.of(config.budget), view=view)


def finished_study(path, **changes):
    """Twelve trials that have ended, with a front of several members."""
    session = open_session(path, replace(study_config(trials=12), **changes))
    run_here(session)
    return load_study(path)


def open_retraining(study, wanted, *, limits=None, view=None, clock=None):
    """The retraining of the finalists that are wanted."""
    clock = clock or continued_clock(study)
    return FinalRetraining(study_config(), study, to_train(study, wanted), clock=clock, limits=limits, view=view)


def retrain(study, wanted, *, limits=None, view=None, clock=None, **options):
    """Run such a retraining to its end in this process."""
    retraining = open_retraining(study, wanted, limits=limits, view=view, clock=clock)
    run_here(retraining, final=True, **options)
    return retraining


def look_at(give):
    """What a process finds in an array, and by how much its own memory grows as it reads all of it."""
    before = _own_mib()
    array = give()
    total = int(array.sum(dtype="uint64"))
    return {"sum": total, "writeable": array.flags.writeable, "own_mib": _own_mib() - before}


def _own_mib():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024
