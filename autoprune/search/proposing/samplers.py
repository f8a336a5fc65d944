"""Optuna's samplers by name, set up for a study."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler

from autoprune.search.proposing.optuna_constraints import constraint_options


def build_sampler(name: str, seed: int, *, wait: int, population: int, constrained: bool) -> BaseSampler:
    """A sampler.

    Args:
        wait: for how many results a sampler with a model waits.
        population: size of a generation.
        constrained: whether trials say by how much they exceed constraints.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of the third NSGA, and before Optuna 5 of more
        return _SAMPLERS[name](seed, wait, population, constraint_options(constrained))


Options = Mapping[str, Any]

#: Since Optuna 4.5 the Gaussian process warns of parameters that it leaves to the other sampler.
_GP_WARNS = "warn_independent_sampling" in inspect.signature(GPSampler).parameters


def _build_tpe(seed: int, wait: int, _population: int, options: Options) -> BaseSampler:
    """Models every parameter by itself, and so learns about conditional ones from the recipes that have them."""
    return TPESampler(n_startup_trials=wait, seed=seed, multivariate=False, **options)


def _build_gp(seed: int, wait: int, population: int, options: Options) -> BaseSampler:
    """A Gaussian process, which models the parameters that every recipe has: it cannot compare others.

    By itself Optuna draws the others, all that depend on a method or an allocation, at random; here TPE proposes them.
    """
    conditional = _build_tpe(seed, wait, population, options)
    quiet = {"warn_independent_sampling": False} if _GP_WARNS else {}
    return GPSampler(n_startup_trials=wait, seed=seed, independent_sampler=conditional, **quiet, **options)


def _build_nsga2(seed: int, _wait: int, population: int, options: Options) -> BaseSampler:
    """Crosses and mutates parameters that every recipe has; those that depend on a method are drawn at random."""
    return NSGAIISampler(population_size=population, seed=seed, **options)


def _build_nsga3(seed: int, _wait: int, population: int, options: Options) -> BaseSampler:
    """The same with reference directions in place of crowding distances, for three objectives and more."""
    return NSGAIIISampler(population_size=population, seed=seed, **options)


def _build_random(seed: int, _wait: int, _population: int, _options: Options) -> BaseSampler:
    return RandomSampler(seed=seed)


#: Name -> a function of seed, results that the sampler waits for, size of a generation, and what it is to look at.
_SAMPLERS: Mapping[str, Callable[[int, int, int, Options], BaseSampler]] = {
    "tpe": _build_tpe,
    "gp": _build_gp,
    "nsga2": _build_nsga2,
    "nsga3": _build_nsga3,
    "random": _build_random,
}
