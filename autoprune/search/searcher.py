"""Proposer: which recipe next. An in-memory Optuna study that can be rebuilt from the two logs of a study folder.

Ray's own `OptunaSearch` leaves trials running for ever when an accuracy is missing, and tells the values of stopped
trials as if they were complete; and a study in a data base outlives a killed driver in another state than the trials.
So the logs are the only truth, and this study is a view of them.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.trial import TrialState, create_trial

from autoprune.pareto import DENSE
from autoprune.recipe import Recipe
from autoprune.results import Outcome, Proposal
from autoprune.space import Branch, Choice, Float, Int, Sampler, Scalar, Space

RANDOM = "random"
#: Where in the range of the target the warm starts lie.
WARM_STARTS = (0.15, 0.5, 0.85)

Params = Mapping[str, Any]


class Proposer:
    """Hands out recipes and learns from their outcomes; not thread-safe, no input or output.

    The order: recipes that were handed out before a crash and have no outcome; the controls (`dense` and `random`);
    uniform L1 at three targets; recipes spread over methods and targets; then the sampler's own.

    Args:
        space: bound to the model.
        objectives: accuracy and the cost ratios to trade off.
        sampler: which one, and after how many recipes it takes over.
        seed: of the sampler and of recipes whose space has no seed.
        proposals, outcomes: the logs of an earlier run, in the order they were written.
    """

    def __init__(
        self,
        space: Space,
        *,
        objectives: Sequence[str] = ("accuracy", "flops"),
        sampler: Sampler | None = None,
        seed: int = 0,
        proposals: Iterable[Proposal] = (),
        outcomes: Iterable[Outcome] = (),
    ) -> None:
        self.space, self.objectives, self.seed = space, tuple(objectives), seed
        past, ended = list(proposals), {outcome.id: outcome for outcome in outcomes}
        sampler = sampler or Sampler()
        self._plan = [*_warm_starts(space), *_spread(space, sampler.startup - len(WARM_STARTS), seed)]
        self._study = _create_study(self.objectives, sampler, seed=_mix(seed, len(past)))
        self._numbers: dict[int, int] = {}
        self._repeats: dict[str, int] = {}
        self._again: deque[Proposal] = deque()
        self._count = 0
        for proposal in past:
            self._replay(proposal, ended.get(proposal.id))

    @property
    def handed_out(self) -> int:
        """The number of distinct recipes ever handed out, by this object and before it."""
        return self._count

    @property
    def waiting(self) -> int:
        """Recipes of an earlier run that will be handed out again."""
        return len(self._again)

    @property
    def optuna_study(self) -> optuna.Study:
        """The sampler's view, for reading: trial states and values."""
        return self._study

    def next(self, now: float = 0.0) -> Proposal:
        """The next recipe; `now` is noted as its time, in seconds since the study began."""
        if self._again:
            return self._again.popleft()
        number, self._count = self._count, self._count + 1
        if number < 2:
            return self._control(number, now)
        planned = number - 2
        if planned < len(self._plan):
            self._study.enqueue_trial(dict(self._plan[planned]))
        trial = self._study.ask()
        recipe = self._recipe(self.space.walk(trial))
        self._numbers[number] = trial.number
        words = {name: json.loads(distribution_to_json(kind)) for name, kind in trial.distributions.items()}
        return Proposal(id=number, recipe=recipe, params=trial.params, distributions=words, proposed=now)

    def tell(self, outcome: Outcome) -> None:
        """Learn from an outcome; one that the sampler does not know (a control outside the space) is left alone."""
        number = self._numbers.pop(outcome.id, None)
        if number is None:
            return
        values = self._values(outcome)
        if values is None:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, values)

    def _values(self, outcome: Outcome) -> list[float] | None:
        """The objectives in order; None unless the recipe ran to its end and every one is a number."""
        ratios = {"accuracy": outcome.accuracy} | cost_ratios(outcome)
        values = [ratios[name] for name in self.objectives]
        if not outcome.completed or any(value is None or not math.isfinite(value) for value in values):
            return None
        return [float(value) for value in values if value is not None]

    def _control(self, number: int, now: float) -> Proposal:
        """The dense model with the same training (0), and random pruning at the middle target (1)."""
        wanted = {"allocation": "uniform"} | ({"method": RANDOM} if number == 1 else {})
        middle = _Middle(wanted)
        plain = self.space.walk(middle)
        if number == 0:
            plain = {**plain, "method": {"name": DENSE}, "target": {}}
        inside = plain["method"]["name"] == RANDOM
        plain = plain if inside or number == 0 else {**plain, "method": {"name": RANDOM}}
        recipe = self._recipe(plain)
        if not inside:
            return Proposal(id=number, recipe=recipe, proposed=now, control=True)
        self._study.enqueue_trial(middle.params)
        trial = self._study.ask()
        self.space.walk(trial)
        self._numbers[number] = trial.number
        words = {name: json.loads(distribution_to_json(kind)) for name, kind in trial.distributions.items()}
        return Proposal(id=number, recipe=recipe, params=trial.params, distributions=words, proposed=now, control=True)

    def _recipe(self, plain: dict[str, Any]) -> Recipe:
        """A recipe that comes a second time gets another seed: a repetition that says something, not the same run."""
        recipe = Recipe.from_dict({"seed": self.seed, **plain}, "space")
        repeats = self._note(recipe)
        return Recipe(**{**vars(recipe), "seed": (recipe.seed + repeats) % 2**32})

    def _note(self, recipe: Recipe) -> int:
        """How often this recipe came before, whatever its seed."""
        key = Recipe(**{**vars(recipe), "seed": 0}).key()
        self._repeats[key] = self._repeats.get(key, -1) + 1
        return self._repeats[key]

    def _replay(self, proposal: Proposal, outcome: Outcome | None) -> None:
        self._count = max(self._count, proposal.id + 1)
        self._note(proposal.recipe)
        if outcome is None:
            self._again.append(proposal)
        if proposal.control and not proposal.distributions:
            return
        values = self._values(outcome) if outcome is not None else None
        state = TrialState.RUNNING if outcome is None else TrialState.FAIL if values is None else TrialState.COMPLETE
        kinds = {name: json_to_distribution(json.dumps(kind)) for name, kind in proposal.distributions.items()}
        self._study.add_trial(
            create_trial(state=state, values=values, params=dict(proposal.params), distributions=kinds)
        )
        if outcome is None:
            self._numbers[proposal.id] = len(self._study.get_trials(deepcopy=False)) - 1


def cost_ratios(outcome: Outcome) -> dict[str, float | None]:
    """The known costs of an outcome relative to the dense model, by the name of the objective."""
    return {
        "flops": outcome.flops_ratio,
        "params": outcome.params_ratio,
        "activations": outcome.activations_ratio,
    }


class _Middle:
    """Fills every parameter with what is wanted of it, else with the middle of its range or the first option.

    A wanted share in [0, 1] of a numeric parameter is given as `_Share`. `params` is what was filled in.
    """

    def __init__(self, wanted: Params) -> None:
        self.wanted = wanted
        self.params: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """The wanted or the middle share of the range, on a log scale if `log`."""
        return self._note(name, _at(Float(low, high, log), self.wanted.get(name, 0.5)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """The same, on the grid."""
        return self._note(name, _at(Int(low, high, log, step), self.wanted.get(name, 0.5)))

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """The wanted option if there is one of that name, else the first."""
        option = self.wanted.get(name)
        return self._note(name, option if option in choices else choices[0])

    def _note(self, name: str, value: Any) -> Any:
        self.params[name] = value
        return value


def _at(kind: Float | Int, share: float) -> Any:
    """The number at a share in [0, 1] of the range."""
    if kind.log:
        number = math.exp(math.log(kind.low) + share * (math.log(kind.high) - math.log(kind.low)))
    else:
        number = kind.low + share * (kind.high - kind.low)
    number = min(max(number, kind.low), kind.high)
    if isinstance(kind, Int):
        return kind.low + kind.step * round((number - kind.low) / kind.step)
    return number


def _targets(space: Space) -> dict[str, Float | Int]:
    """The numeric parameters of the target; usually one, `target.flops`."""
    found = space.parameters().items()
    return {name: kind for name, kind in found if name.startswith("target.") and isinstance(kind, (Float, Int))}


def _warm_starts(space: Space) -> list[Params]:
    """The plainest way to prune, uniform L1, at a low, a middle and a high target; nothing where L1 is not searched."""
    if "l1" not in space.methods():
        return []
    starts = []
    for share in WARM_STARTS:
        middle = _Middle({"method": "l1", "allocation": "uniform"} | dict.fromkeys(_targets(space), share))
        space.walk(middle)
        starts.append(middle.params)
    return starts


def _spread(space: Space, count: int, seed: int) -> list[Params]:
    """Partial recipes that visit every method in turn and every slice of the target's range once (Latin hypercube).

    What they leave open, the sampler fills in at random. Random sampling alone leaves out one of six methods in a
    third of all starts of twelve (1 - (5/6)^12 = 0.89 per method).
    """
    random = np.random.default_rng([seed, 0x5F])
    methods = space.parameters().get("method")
    options = list(methods.options) if isinstance(methods, (Branch, Choice)) else []
    options = [str(name) for name in random.permutation(options)]
    slices = {name: random.permutation(max(count, 0)) for name in _targets(space)}
    starts: list[Params] = []
    for index in range(count):
        shares = {name: (order[index] + random.random()) / count for name, order in slices.items()}
        targets = {name: _at(kind, shares[name]) for name, kind in _targets(space).items()}
        starts.append({**targets, **({"method": options[index % len(options)]} if options else {})})
    return starts


def _create_study(objectives: Sequence[str], sampler: Sampler, *, seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = ["maximize" if name == "accuracy" else "minimize" for name in objectives]
    return optuna.create_study(directions=directions, sampler=_SAMPLERS[sampler.name](sampler.startup, seed))


_SAMPLERS = {
    "tpe": lambda startup, seed: optuna.samplers.TPESampler(n_startup_trials=startup, seed=seed),
    "nsga2": lambda startup, seed: optuna.samplers.NSGAIISampler(population_size=max(startup, 4), seed=seed),
    "random": lambda _, seed: optuna.samplers.RandomSampler(seed=seed),
}


def _mix(seed: int, count: int) -> int:
    """Another stream for every resume: with the same one the sampler would propose its first recipes again."""
    return int(np.random.SeedSequence([seed, count]).generate_state(1)[0])
