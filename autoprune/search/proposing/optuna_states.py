"""How a trial has ended, in Optuna's words."""

from __future__ import annotations

from optuna.trial import TrialState

from autoprune.study.outcome import Outcome


def ended_state(outcome: Outcome, *, complete: bool) -> TrialState:
    """The state of a trial that has ended.

    A recipe that lost a comparison with others is `PRUNED`: TPE counts it among the bad ones, the other samplers
    pass over it. A recipe that broke a constraint is `PRUNED` too: TPE ranks these by how far they exceed it, the
    Gaussian process learns from how much room the others have left, the genetic samplers breed from what is
    allowed. A recipe that failed, or that something else cut short (`error` says what), says nothing about its
    parameters: it is a `FAIL`, which every sampler passes over.

    Args:
        complete: whether it ran to its end and every objective is a number.
    """
    if complete:
        return TrialState.COMPLETE
    judged = outcome.infeasible or (outcome.status == "stopped" and outcome.error is None)
    return TrialState.PRUNED if judged else TrialState.FAIL
