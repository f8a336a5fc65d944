"""Optuna's samplers by name, set up for a study."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler


def _tpe(seed: int, wait: int, _population: int) -> BaseSampler:
    """Every parameter by itself: so it learns about conditional ones from the recipes that have them."""
    return TPESampler(n_startup_trials=wait, seed=seed, multivariate=False)


def _gp(seed: int, wait: int, population: int) -> BaseSampler:
    """A Gaussian process cannot compare recipes of different parameters: it models those that every recipe has.

    Left alone Optuna draws the others, all that hang on a method or an allocation, at random; here TPE proposes them.
    """
    conditional = _tpe(seed, wait, population)
    return GPSampler(n_startup_trials=wait, seed=seed, independent_sampler=conditional, warn_independent_sampling=False)


def _nsga2(seed: int, _wait: int, population: int) -> BaseSampler:
    """Crosses and mutates parameters that every recipe has; those that hang on a method are always drawn at random."""
    return NSGAIISampler(population_size=population, seed=seed)


def _nsga3(seed: int, _wait: int, population: int) -> BaseSampler:
    """The same with reference directions in place of crowding distances, for three objectives and more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return NSGAIIISampler(population_size=population, seed=seed)


def _random(seed: int, _wait: int, _population: int) -> BaseSampler:
    return RandomSampler(seed=seed)


#: Name -> (seed, results it waits for, size of a generation) -> sampler.
_SAMPLERS: Mapping[str, Callable[[int, int, int], BaseSampler]] = {
    "tpe": _tpe,
    "gp": _gp,
    "nsga2": _nsga2,
    "nsga3": _nsga3,
    "random": _random,
}
