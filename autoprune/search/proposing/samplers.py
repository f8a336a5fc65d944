"""Optuna's samplers by name, set up for a study."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler


def _build_tpe(seed: int, wait: int, _population: int) -> BaseSampler:
    """Models every parameter by itself, and so learns about conditional ones from the recipes that have them."""
    return TPESampler(n_startup_trials=wait, seed=seed, multivariate=False)


def _build_gp(seed: int, wait: int, population: int) -> BaseSampler:
    """A Gaussian process, which models the parameters that every recipe has: it cannot compare others.

    By itself Optuna draws the others, all that depend on a method or an allocation, at random; here TPE proposes them.
    """
    conditional = _build_tpe(seed, wait, population)
    return GPSampler(n_startup_trials=wait, seed=seed, independent_sampler=conditional, warn_independent_sampling=False)


def _build_nsga2(seed: int, _wait: int, population: int) -> BaseSampler:
    """Crosses and mutates parameters that every recipe has; those that depend on a method are drawn at random."""
    return NSGAIISampler(population_size=population, seed=seed)


def _build_nsga3(seed: int, _wait: int, population: int) -> BaseSampler:
    """The same with reference directions in place of crowding distances, for three objectives and more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return NSGAIIISampler(population_size=population, seed=seed)


def _build_random(seed: int, _wait: int, _population: int) -> BaseSampler:
    return RandomSampler(seed=seed)


#: Name -> a function of seed, results that the sampler waits for, and size of a generation.
SAMPLERS: Mapping[str, Callable[[int, int, int], BaseSampler]] = {
    "tpe": _build_tpe,
    "gp": _build_gp,
    "nsga2": _build_nsga2,
    "nsga3": _build_nsga3,
    "random": _build_random,
}
