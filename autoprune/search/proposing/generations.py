"""Generations of genetic samplers, which recipes belong to even if nothing is drawn for them."""

from __future__ import annotations

import optuna
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler


def enrol_in_generation(study: optuna.Study, sampler: BaseSampler, number: int) -> None:
    """Note in the study of which generation a trial is and which its parents are; other samplers have none.

    Optuna does so when it draws a parameter: a recipe of the plan that leaves nothing open would be of no generation,
    and so never a parent.
    """
    if not isinstance(sampler, NSGAIISampler | NSGAIIISampler):
        return
    trial = study.get_trials(deepcopy=False)[number]
    if hasattr(sampler, "get_parent_population"):
        sampler.get_parent_population(study, sampler.get_trial_generation(study, trial))
    else:  # the third NSGA before Optuna 4.5, which settles both at once
        parents, _ = sampler._collect_parent_population(study)
        study._storage.set_trial_system_attr(trial._trial_id, "nsga3:generation", parents + 1)
