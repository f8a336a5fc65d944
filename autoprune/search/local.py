"""The search in one process, without Ray: one recipe after the other. For debugging, small machines and tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from autoprune.results import Rung
from autoprune.search.evaluate import Evaluator, run_safely, write_model
from autoprune.search.session import Session


def run(session: Session, evaluator: Evaluator, *, trial_timeout: float) -> None:
    """Run recipes until the session hands out no more.

    A hung recipe cannot be ended from inside its own process: a trial that takes longer than `trial_timeout` seconds is
    stopped at its next rung.
    """
    try:
        with _signals_interrupt():
            while (proposal := session.next()) is not None:
                session.refresh(force=True)
                until = session.clock.now() + trial_timeout

                def report(_rung: Rung, _ratios: Mapping[str, float], until: float = until) -> bool:
                    session.refresh()
                    return not session.overrun() and session.clock.now() < until

                evaluation = run_safely(evaluator, proposal, report, session.clock)
                if evaluation.files:
                    write_model(session.folder.models, proposal.id, evaluation.files)
                session.ended(evaluation.outcome)
    except KeyboardInterrupt:
        session.interrupted = True


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
