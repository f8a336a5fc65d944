"""The search in one process, without Ray: one recipe after the other. For debugging, small machines and tests."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from autoprune.files import fill, read_files, write_files
from autoprune.search.running.dispatcher import Runs
from autoprune.search.running.evaluate import Evaluator, Leg, run_leg
from autoprune.study.outcome import Rung


def run(session: Runs, evaluator: Evaluator, *, trial_timeout: float) -> None:
    """Run recipes until the session hands out no more.

    A hung recipe cannot be ended from inside its own process: a trial that takes longer than `trial_timeout` seconds is
    stopped at its next rung.
    """
    try:
        with _signals_interrupt():
            while (leg := session.next()) is not None:
                session.refresh(force=True)
                _run(session, evaluator, leg, session.clock.now() + trial_timeout)
    except KeyboardInterrupt:
        session.interrupted = True


def _run(session: Runs, evaluator: Evaluator, leg: Leg, until: float) -> None:
    def report(_rung: Rung, _ratios: Mapping[str, float]) -> bool:
        session.refresh()
        return not session.overrun() and session.clock.now() < until

    number, states = leg.proposal.id, session.states
    with tempfile.TemporaryDirectory(prefix="autoprune-trial-") as folder:
        if leg.resumed:
            fill(Path(folder), read_files(states / str(number)))
        evaluation = run_leg(evaluator, leg, report, session.clock, Path(folder))
        if evaluation.outcome.status == "paused":
            write_files(states, number, read_files(Path(folder)))
    if evaluation.files:
        write_files(session.models, number, evaluation.files)
    session.ended(evaluation.outcome)


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM ends a search as Ctrl-C does; elsewhere than in the main thread Python allows no handlers."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
