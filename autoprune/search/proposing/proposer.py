"""Proposer: which recipe next. An in-memory Optuna study that can be rebuilt from the two logs of a study folder.

Ray's own `OptunaSearch` leaves trials running for ever when an accuracy is missing, and tells the values of stopped
trials as if they were complete; and a study in a data base outlives a killed driver in another state than the trials.
So the logs are the only truth, and this study is a view of them.

Every proposal has a sampler of its own, seeded with the study's seed and the proposal's number, so that what it
proposes depends on these and on what was told before, not on how often the search was killed. With one worker a search
that is killed and resumed therefore proposes what it would have proposed anyway.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler
from optuna.trial import TrialState, create_trial

from autoprune.recipe import Recipe
from autoprune.search.proposing.first_recipes import Middle, Params, first_recipes
from autoprune.search.proposing.samplers import _SAMPLERS
from autoprune.study.config import Sampler
from autoprune.study.constraints import Constraints
from autoprune.study.outcome import DENSE, RANDOM, Outcome, Proposal
from autoprune.study.space import Space

CONTROLS = 2


#: So many results a model needs before it is asked; until then recipes are drawn at random.
ENOUGH = 4


_FOR_EVER = 2**31


class Proposer:
    """Hands out recipes and learns from their outcomes; not thread-safe, no input or output.

    The order: recipes that were handed out before a crash and have no outcome; the controls (`dense` and `random`);
    the plan (`plan.first_recipes`); then the sampler's own.

    Args:
        space: bound to the model.
        objectives: accuracy and the cost ratios to trade off.
        constraints: what a pruned model may not exceed; samplers hear by how much each does.
        sampler: which one, after how many recipes it takes over, and what comes before.
        seed: of the sampler and of recipes whose space has no seed.
        controls: whether the controls come first.
        proposals, outcomes: the logs of an earlier run, in the order they were written.
    """

    def __init__(
        self,
        space: Space,
        *,
        objectives: Sequence[str] = ("accuracy", "flops"),
        constraints: Constraints | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        controls: bool = True,
        proposals: Iterable[Proposal] = (),
        outcomes: Iterable[Outcome] = (),
    ) -> None:
        self.space, self.objectives, self.seed = space, tuple(objectives), seed
        self._constraints, self._sampler = constraints or Constraints(), sampler or Sampler()
        self._controls = CONTROLS if controls else 0
        self._plan = first_recipes(space, self._sampler, seed)
        self._study = _create_study(self.objectives)
        self._numbers: dict[int, int] = {}
        self._repeats: dict[str, int] = {}
        self._again: deque[Proposal] = deque()
        self._count = 0
        self._replay(list(proposals), deque(outcomes))

    @property
    def handed_out(self) -> int:
        """The number of distinct recipes ever handed out, by this object and before it."""
        return self._count

    @property
    def waiting(self) -> int:
        """Recipes of an earlier run that will be handed out again."""
        return len(self._again)

    def waits(self, number: int) -> None:
        """A recipe of an earlier run need not be handed out again: it goes on from where it paused."""
        self._again = deque(proposal for proposal in self._again if proposal.id != number)

    @property
    def optuna_study(self) -> optuna.Study:
        """The sampler's view, for reading: trial states and values."""
        return self._study

    def next(self, now: float = 0.0) -> Proposal:
        """The next recipe; `now` is noted as its time, in seconds since the study began."""
        if self._again:
            return self._again.popleft()
        number, self._count = self._count, self._count + 1
        if number < self._controls:
            return self._control(number, now)
        planned = number - self._controls
        return self._ask(number, now, self._plan[planned] if planned < len(self._plan) else None)

    def tell(self, outcome: Outcome) -> None:
        """Learn from an outcome; one that the sampler does not know (a control outside the space) is left alone."""
        number = self._numbers.pop(outcome.id, None)
        if number is not None:
            self._constrain(number, outcome)
            self._study.tell(number, **self._told(outcome))

    def _constrain(self, number: int, outcome: Outcome) -> None:
        """By what share the outcome exceeds each constraint; where it never was cut, its target does."""
        if outcome.status == "failed" or not self._constraints.limits():
            return
        known = {name: value for name, value in outcome.costs.items() if value is not None}
        trial = optuna.Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)
        for name, excess in self._constraints.excess({**outcome.recipe.target.ratios(), **known}).items():
            trial.set_constraint(name, excess)

    def _told(self, outcome: Outcome) -> dict[str, Any]:
        """The outcome in Optuna's words.

        A recipe that lost a comparison with others is `PRUNED`: TPE counts it among the bad ones, the other samplers
        pass over it. So is one that broke a constraint: TPE ranks those by how far they exceed it, the Gaussian process
        learns from how much room the others have left, the genetic ones breed from what is allowed. One that something
        else cut short (`error` says what) or that failed says nothing about its parameters: `FAIL`, which every sampler
        passes over.
        """
        values = self._values(outcome)
        if values is not None:
            return {"state": TrialState.COMPLETE, "values": values}
        judged = outcome.infeasible or (outcome.status == "stopped" and outcome.error is None)
        return {"state": TrialState.PRUNED if judged else TrialState.FAIL}

    def _values(self, outcome: Outcome) -> list[float] | None:
        """The objectives in order; None unless the recipe ran to its end and every one is a number."""
        ratios = {"accuracy": outcome.accuracy} | outcome.costs
        values = [ratios[name] for name in self.objectives]
        if not outcome.completed or any(value is None or not math.isfinite(value) for value in values):
            return None
        return [float(value) for value in values if value is not None]

    def _control(self, number: int, now: float) -> Proposal:
        """The dense model with the same training (0), and random pruning at the middle target (1)."""
        wanted = {"allocation": "uniform"} | ({"method": RANDOM} if number == 1 else {})
        middle = Middle(wanted)
        plain = self.space.walk(middle)
        if number == 1 and plain["method"]["name"] == RANDOM:
            return self._ask(number, now, middle.params, control=True)
        plain |= {"method": {"name": RANDOM}} if number == 1 else {"method": {"name": DENSE}, "target": {}}
        return Proposal(id=number, recipe=self._recipe(plain), proposed=now, control=True)

    def _ask(self, number: int, now: float, planned: Params | None, *, control: bool = False) -> Proposal:
        """A recipe that the sampler knows of; what `planned` leaves open is the sampler's choice."""
        if planned is not None:
            self._study.enqueue_trial(dict(planned))
        sampler = self._study.sampler = self._sampler_of(number)
        trial = self._study.ask()
        self._numbers[number] = trial.number
        self._enrol(number, sampler)
        recipe = self._recipe(self.space.walk(trial))
        words = {name: json.loads(distribution_to_json(kind)) for name, kind in trial.distributions.items()}
        return Proposal(
            id=number, recipe=recipe, params=trial.params, distributions=words, proposed=now, control=control
        )

    def _sampler_of(self, number: int) -> BaseSampler:
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        # Recipes that are still to come say nothing yet; what the plan leaves open is drawn at random to the end of it.
        wait = ENOUGH if number >= self._controls + len(self._plan) else _FOR_EVER
        return _SAMPLERS[self._sampler.name](seed, wait, max(self._sampler.startup, 4))

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

    def _replay(self, proposals: Sequence[Proposal], outcomes: deque[Outcome]) -> None:
        """Ask and tell once more what the logs say, in the order in which it happened: generations depend on it."""
        ended = {outcome.id for outcome in outcomes}
        known: set[int] = set()
        for proposal in proposals:
            while outcomes and outcomes[0].id in known and outcomes[0].finished <= proposal.proposed:
                self.tell(outcomes.popleft())
            known.add(proposal.id)
            self._restore(proposal)
            if proposal.id not in ended:
                self._again.append(proposal)
        for outcome in outcomes:
            self.tell(outcome)

    def _restore(self, proposal: Proposal) -> None:
        """A proposal as the study held it once it had been asked for."""
        self._count = max(self._count, proposal.id + 1)
        self._note(proposal.recipe)
        if proposal.control and not proposal.distributions:
            return
        kinds = {name: json_to_distribution(json.dumps(kind)) for name, kind in proposal.distributions.items()}
        self._study.add_trial(create_trial(state=TrialState.RUNNING, params=dict(proposal.params), distributions=kinds))
        self._numbers[proposal.id] = len(self._study.get_trials(deepcopy=False)) - 1
        self._enrol(proposal.id, self._sampler_of(proposal.id))

    def _enrol(self, number: int, sampler: BaseSampler) -> None:
        """Genetic samplers note in the study who is of which generation, and who its parents are.

        Optuna does so when it draws a parameter: a recipe of the plan that leaves nothing open would be of none, and so
        nobody's parent.
        """
        if isinstance(sampler, NSGAIISampler | NSGAIIISampler):
            trial = self._study.get_trials(deepcopy=False)[self._numbers[number]]
            sampler.get_parent_population(self._study, sampler.get_trial_generation(self._study, trial))


def _create_study(objectives: Sequence[str]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = ["maximize" if name == "accuracy" else "minimize" for name in objectives]
    return optuna.create_study(directions=directions)
