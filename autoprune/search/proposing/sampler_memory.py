"""What a sampler with a model remembers of a long study: the best trials and the latest.

Optuna's TPE ranks all trials anew for every parameter that it proposes: 12 ms a proposal in a study of 100 trials, 65
in one of 1,000 and 1,310 in one of 10,000, all remembered (`analysis/benchmarks/slots.md` has what it takes now). 64
slots whose trials take five seconds asked for 13 recipes a second and waited for it. The good trials are the best,
whenever they came; the others only say where recipes were drawn, which the latest say as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autoprune.study.pareto import ranked

#: Trials that have ended, by sampler, beyond which the study is condensed; other samplers remember all of them.
#: The Gaussian process solves a system with a row for each.
REMEMBERED = {"tpe": 500, "gp": 200}
#: Shares of these that stay: the best, and the latest of the others.
BEST, LATEST = 0.2, 0.4


def condensed(study: optuna.Study, sampler: str) -> tuple[optuna.Study, dict[int, int]] | None:
    """The study without what the sampler does not need; None while it remembers all.

    Returns:
        A study in which the trials that are under way are left as they are, and by what number it knows each of them:
        number before -> number now.
    """
    remembered = REMEMBERED.get(sampler)
    trials = study.get_trials(deepcopy=False)
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if remembered is None or len(ended) <= remembered:
        return None
    best = _best(ended, study.directions, round(BEST * remembered))
    others = [trial for trial in ended if trial.number not in best][-round(LATEST * remembered) :]
    kept = best | {trial.number for trial in others}
    staying = [trial for trial in trials if trial.number in kept or not trial.state.is_finished()]
    new = optuna.create_study(directions=study.directions)
    new.add_trials(staying)
    numbers = {trial.number: number for number, trial in enumerate(staying) if not trial.state.is_finished()}
    return new, numbers


def _best(trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], count: int) -> set[int]:
    """The numbers of the best trials that ran to their end, and broke no constraint."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    signs = np.array([-1.0 if direction == StudyDirection.MAXIMIZE else 1.0 for direction in directions])
    order = ranked(np.array([trial.values for trial in complete]) * signs) if complete else []
    return {complete[index].number for index in order[:count]}
