"""Proposer: which recipe comes next. It holds an Optuna study in memory, which two logs of a study folder can rebuild.

Ray's own `OptunaSearch` leaves trials running for ever when a metric is missing, and tells the values of stopped
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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from autoprune.errors import InputError
from autoprune.recipe import Recipe
from autoprune.search.proposing.first_recipes import (
    LINEAGE_STARTS,
    WARM_STARTS,
    Middle,
    Params,
    first_recipes,
    target_parameters,
)
from autoprune.search.proposing.generations import enrol_in_generation
from autoprune.search.proposing.lineage_planner import (
    TRAINED,
    UNLIMITED,
    LineagePlanner,
    Room,
    offers_lineages,
    without_steps,
)
from autoprune.search.proposing.optuna_constraints import check_constraints_are_learned, note_excess
from autoprune.search.proposing.optuna_states import ended_state
from autoprune.search.proposing.redraws import DRAWN_BY_SAMPLER, Refuse, draws, middles, nothing_drawn, refuse_nothing
from autoprune.search.proposing.sampler_memory import condensed
from autoprune.search.proposing.samplers import build_sampler
from autoprune.study.config import Sampler
from autoprune.study.constraints import Constraints
from autoprune.study.metric import ACCURACY, MetricSpec
from autoprune.study.outcome import DENSE, RANDOM, Outcome, Proposal
from autoprune.study.space import Space

#: Recipes to compare with: the dense model, and random pruning.
CONTROLS = 2

#: A sampler with a model waits for so many results, and draws recipes at random until then.
ENOUGH = 4
FOR_EVER = 2**31


class Proposer:
    """Hands out recipes and learns from their outcomes; not thread-safe, no input or output.

    The order: recipes that were handed out before a crash and have no outcome; the controls (`dense` and `random`);
    the plan (`first_recipes.first_recipes`); then the sampler's own.

    In a space with `weights: front` the lineage policy says where a recipe starts and what it may cost, plan or not,
    and the plan or the sampler how it prunes; what the sampler is told then is how far the metric's
    height lay above what was expected, since the height itself is the parent's more than the recipe's.

    Args:
        space: bound to the model.
        objectives: the name of the metric and the cost ratios to trade off. The sampler is told the metric's height.
        metric: what models are judged by.
        constraints: what a pruned model may not exceed; samplers are told by how much each does.
        sampler: its name, after how many recipes it takes over, and what comes before.
        seed: of the sampler and of recipes whose space has no seed.
        controls: whether the controls come first.
        dense_metric: of the model as it was handed in; needed where recipes go on from the front.
        refuse: why a recipe cannot work, as far as that is known before it runs; see `trial.feasibility`. Such a recipe
            is drawn again, and counts for nothing: to Optuna it is a trial that failed, which samplers pass over.
        proposals, outcomes: the logs of an earlier run, in the order they were written.

    Raises:
        InputError: recipes go on from the front and the dense model's metric is not known, or the sampler cannot
            learn the constraints with the Optuna that is installed.
    """

    def __init__(
        self,
        space: Space,
        *,
        objectives: Sequence[str] = ("accuracy", "flops"),
        metric: MetricSpec = ACCURACY,
        constraints: Constraints | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        controls: bool = True,
        dense_metric: float | None = None,
        refuse: Refuse = refuse_nothing,
        proposals: Iterable[Proposal] = (),
        outcomes: Iterable[Outcome] = (),
    ) -> None:
        self._refuse = refuse
        self.space, self.objectives, self.metric, self.seed = space, tuple(objectives), metric, seed
        self._constraints, self._sampler = constraints or Constraints(), sampler or Sampler()
        self._controls = CONTROLS if controls else 0
        self._planner = _open_planner(space, metric, dense_metric)
        self._plan = first_recipes(space, self._sampler, seed, LINEAGE_STARTS if self._planner else WARM_STARTS)
        if self._planner is not None:
            self._plan = without_steps(self._planner, self._plan)
        goals = (metric.name,) if self._planner else self.objectives
        check_constraints_are_learned(self._sampler, len(goals), bool(self._constraints.limits()))
        self._study = _create_study(goals, metric)
        self._numbers: dict[int, int] = {}
        self._repeats: dict[str, int] = {}
        self._again: deque[Proposal] = deque()
        self._count = 0
        self._replay_logs(list(proposals), deque(outcomes))

    @property
    def handed_out(self) -> int:
        """The number of distinct recipes ever handed out, by this object and before it."""
        return self._count

    @property
    def waiting(self) -> int:
        """Recipes of an earlier run that will be handed out again."""
        return len(self._again)

    def drop_waiting(self, number: int) -> None:
        """Do not hand out a recipe of an earlier run again: its trial goes on from where it paused."""
        self._again = deque(proposal for proposal in self._again if proposal.id != number)

    @property
    def optuna_study(self) -> optuna.Study:
        """The sampler's view, for reading: states and values of the trials that it remembers."""
        return self._study

    def next(self, now: float = 0.0, room: Room = UNLIMITED) -> Proposal:
        """The next recipe.

        Args:
            now: is noted as its time, in seconds since the study began.
            room: what is left for it; where recipes go on from the front a long one is handed out only if it fits in.

        Raises:
            InputError: none that can work was drawn.
        """
        if self._again:
            return self._again.popleft()
        proposal = self._propose(self._count, now, room)
        self._count += 1
        if self._planner is not None:
            self._planner.record_proposal(proposal)
        return proposal

    def parents(self) -> set[int]:
        """The trials that a recipe may go on from, and whose models are therefore needed."""
        return set() if self._planner is None else self._planner.parents()

    def _propose(self, number: int, now: float, room: Room) -> Proposal:
        if number < self._controls:
            return self._propose_control(number, now)
        planned = self._planned_before(number)
        plan = self._plan[planned] if planned < len(self._plan) else None
        if self._planner is None:
            return self._ask_sampler(number, now, plan)
        return self._propose_step(self._planner, number, now, plan or {}, room)

    def _planned_before(self, number: int) -> int:
        """How many recipes came that the plan had a word in: along lineages those that cut something."""
        return number - self._controls if self._planner is None else self._planner.cuts

    def _propose_step(self, planner: LineagePlanner, number: int, now: float, plan: Params, room: Room) -> Proposal:
        """A recipe along a lineage, in a way of the plan or the sampler's; one that cuts nothing leaves none to choose.

        To repeat the way whose recipes ended farthest above what was expected, as a bandit would, is worth nothing: in
        simulated searches of 20 and 40 minutes 0.000 of hypervolume (`search_simulation.md`). The sampler learns from
        the same surprises.
        """
        step = planner.next_step(room)
        if not planner.is_cut(step):
            recipe = planner.train_on(step)
            return Proposal(id=number, recipe=recipe, proposed=now, expected=step.expected)
        asked = self._ask_sampler(
            number,
            now,
            plan,
            settled=planner.settle(step, {}),
            recipe_of=lambda plain: planner.descend(step, plain, self.seed),
        )
        return replace(asked, expected=step.expected)

    def tell(self, outcome: Outcome) -> None:
        """Learn from an outcome; that of a recipe outside the space, such as a control, is left alone."""
        if self._planner is not None:
            self._planner.record_outcome(outcome)
        number = self._numbers.pop(outcome.id, None)
        if number is not None:
            self._tell_constraints(number, outcome)
            self._study.tell(number, **self._tell_arguments(outcome))

    def _tell_constraints(self, number: int, outcome: Outcome) -> None:
        """Tell by what share the outcome exceeds each constraint; where nothing was cut, its target counts."""
        if outcome.status == "failed" or not self._constraints.limits():
            return
        known = {name: value for name, value in outcome.costs.items() if value is not None}
        trial = optuna.Trial(self._study, self._study.get_trials(deepcopy=False)[number]._trial_id)
        note_excess(trial, self._constraints.excess({**outcome.recipe.target.ratios(), **known}))

    def _tell_arguments(self, outcome: Outcome) -> dict[str, Any]:
        """The outcome in Optuna's words: the arguments of `Study.tell`, see `ended_state`."""
        values = self._objective_values(outcome)
        return {"state": ended_state(outcome, complete=values is not None)} | ({"values": values} if values else {})

    def _objective_values(self, outcome: Outcome) -> list[float] | None:
        """The objectives in order; None unless the recipe ran to its end and every one is a number."""
        if self._planner is not None:
            surprise = self._planner.surprise(outcome) if outcome.completed else None
            return None if surprise is None or not math.isfinite(surprise) else [surprise]
        height = None if outcome.metric is None else self.metric.height(outcome.metric)
        ratios = {self.metric.name: height} | outcome.costs
        values = [ratios[name] for name in self.objectives]
        if not outcome.completed or any(value is None or not math.isfinite(value) for value in values):
            return None
        return [float(value) for value in values if value is not None]

    def _propose_control(self, number: int, now: float) -> Proposal:
        """The dense model with the same training (0), and random pruning near the middle target (1)."""
        middle = Middle({"allocation": "uniform"}) if number == 0 else self._middle_of_random()
        plain = self.space.walk(middle)
        if number == 1 and plain["method"]["name"] == RANDOM:
            return self._ask_sampler(number, now, middle.params, control=True)
        if self._planner is not None:
            plain |= {"weights": TRAINED}
        plain |= {"method": {"name": RANDOM}} if number == 1 else {"method": {"name": DENSE}, "target": {}}
        return Proposal(id=number, recipe=self._with_own_seed(plain), proposed=now, control=True)

    def _middle_of_random(self) -> Middle:
        """Random pruning as near to the middle of all ranges as its target can be met; `uniform` if possible."""
        targets = target_parameters(self.space)
        for wanted in middles(self.space):
            middle = Middle({**wanted, "method": RANDOM})
            plain = self.space.walk(middle) | {"method": {"name": RANDOM}}
            if not targets or self._refuse(self._recipe_of(plain)) is None:
                return middle
        return Middle({"allocation": "uniform", "method": RANDOM})

    def _ask_sampler(
        self,
        number: int,
        now: float,
        planned: Params | None,
        *,
        settled: Params | None = None,
        control: bool = False,
        recipe_of: Callable[[dict[str, Any]], Recipe] | None = None,
    ) -> Proposal:
        """A recipe that the sampler knows of and that is not refused; what `planned` leaves open is its choice.

        Args:
            settled: parameters that every draw has; `planned` is given up if its recipes are refused.
            recipe_of: makes the recipe of the space's plain data; by default the recipe that they say.
        """
        self._forget()
        refusal = None
        for draw, known in enumerate(draws(self.space, planned, settled or {})):
            trial = self._ask(number, draw, known)
            plain = self.space.walk(trial)
            recipe = (recipe_of or self._recipe_of)(plain)
            refusal = self._refuse(recipe)
            if refusal is None:
                recipe = recipe if recipe_of is not None else self._with_own_seed(plain)
                return self._as_proposal(number, now, trial, recipe, control=control)
            self._study.tell(trial.number, state=TrialState.FAIL)
        raise nothing_drawn(refusal)

    def _ask(self, number: int, draw: int, known: Params | None) -> optuna.Trial:
        """A trial of Optuna; its sampler depends on the numbers of the proposal and the draw alone."""
        if known is not None:
            self._study.enqueue_trial(dict(known))
        self._study.sampler = self._make_sampler(number, draw)
        return self._study.ask()

    def _as_proposal(self, number: int, now: float, trial: optuna.Trial, recipe: Recipe, *, control: bool) -> Proposal:
        self._numbers[number] = trial.number
        enrol_in_generation(self._study, self._study.sampler, trial.number)
        words = {name: json.loads(distribution_to_json(kind)) for name, kind in trial.distributions.items()}
        return Proposal(
            id=number, recipe=recipe, params=trial.params, distributions=words, proposed=now, control=control
        )

    def _make_sampler(self, number: int, draw: int = 0) -> BaseSampler:
        of_draw = [draw] if draw else []
        seed = int(np.random.SeedSequence([self.seed, number, *of_draw]).generate_state(1)[0])
        # Recipes of the plan that are still to come say nothing yet: what they leave open is drawn at random.
        wait = ENOUGH if self._planned_before(number) >= len(self._plan) else FOR_EVER
        return build_sampler(
            self._sampler.name if draw < DRAWN_BY_SAMPLER else "random",
            seed,
            wait=wait,
            population=max(self._sampler.startup, 4),
            constrained=bool(self._constraints.limits()),
        )

    def _with_own_seed(self, plain: dict[str, Any]) -> Recipe:
        """The recipe; one that comes a second time gets another seed, so that its repetition says something new."""
        recipe = self._recipe_of(plain)
        repeats = self._count_repeats(recipe)
        return Recipe(**{**vars(recipe), "seed": (recipe.seed + repeats) % 2**32})

    def _recipe_of(self, plain: dict[str, Any]) -> Recipe:
        return Recipe.from_dict({"seed": self.seed, **plain}, "space")

    def _count_repeats(self, recipe: Recipe) -> int:
        """Count this recipe; how often it came before, whatever its seed."""
        key = Recipe(**{**vars(recipe), "seed": 0}).key()
        self._repeats[key] = self._repeats.get(key, -1) + 1
        return self._repeats[key]

    def _replay_logs(self, proposals: Sequence[Proposal], outcomes: deque[Outcome]) -> None:
        """Ask and tell once more what the logs say, in the order in which it happened: generations depend on it."""
        ended = {outcome.id for outcome in outcomes}
        known: set[int] = set()
        for proposal in proposals:
            while outcomes and outcomes[0].id in known and outcomes[0].finished <= proposal.proposed:
                self.tell(outcomes.popleft())
            known.add(proposal.id)
            self._restore_proposal(proposal)
            if proposal.id not in ended:
                self._again.append(proposal)
        for outcome in outcomes:
            self.tell(outcome)

    def _forget(self) -> None:
        """Leave out of the study what its sampler need not remember; before every proposal, new or from the logs."""
        shorter = condensed(self._study, self._sampler.name)
        if shorter is not None:
            self._study, numbers = shorter
            self._numbers = {proposal: numbers[number] for proposal, number in self._numbers.items()}

    def _restore_proposal(self, proposal: Proposal) -> None:
        """Put a proposal into the study as it was when it had been asked for."""
        self._count = max(self._count, proposal.id + 1)
        if self._planner is not None:
            self._planner.record_proposal(proposal)
        self._count_repeats(proposal.recipe)
        if not proposal.distributions and (proposal.control or self._planner is not None):
            return
        self._forget()
        kinds = {name: json_to_distribution(json.dumps(kind)) for name, kind in proposal.distributions.items()}
        self._study.add_trial(create_trial(state=TrialState.RUNNING, params=dict(proposal.params), distributions=kinds))
        self._numbers[proposal.id] = len(self._study.get_trials(deepcopy=False)) - 1
        # A sampler of one's own learns what constraints say at the end of a trial, Optuna's default one does not.
        sampler = self._study.sampler = self._make_sampler(proposal.id)
        enrol_in_generation(self._study, sampler, self._numbers[proposal.id])


def _open_planner(space: Space, metric: MetricSpec, dense_metric: float | None) -> LineagePlanner | None:
    if not offers_lineages(space):
        return None
    if dense_metric is None:
        what = f"recipes that go on from the front need the dense model's {metric.name}"
        raise InputError(what, where="space.weights")
    return LineagePlanner(space, metric, dense_metric)


def _create_study(objectives: Sequence[str], metric: MetricSpec) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = ["maximize" if name == metric.name else "minimize" for name in objectives]
    return optuna.create_study(directions=directions)
