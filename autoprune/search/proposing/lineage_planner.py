"""Lineage planner: keeps what the lineage policy chooses from, as proposals and outcomes come in."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from autoprune.errors import InputError
from autoprune.recipe import Recipe, Target
from autoprune.search.proposing.first_recipes import Params, contains, target_parameters
from autoprune.search.proposing.lineage_expectation import Training
from autoprune.search.proposing.lineage_policy import Lineages, Model, Step, front_of, next_step
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import DENSE, Outcome, Proposal
from autoprune.study.parameters import Choice, Float, Int
from autoprune.study.space import Space

FRONT, TRAINED = "front", "trained"
IMAGES = "training.images"

#: Trainings whose time is looked back at: conditions change.
MEMORY = 64


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a budget has left for one trial: seconds, and training images."""

    seconds: float = math.inf
    images: float = math.inf


UNLIMITED = Room()


def offers_lineages(space: Space) -> bool:
    """Whether recipes of the space may go on from members of the front."""
    return any(recipe.weights == FRONT for recipe in space.corners())


def target_range(space: Space) -> tuple[str, Float]:
    """The name of the one target that lineages go down, and its range.

    Raises:
        InputError: there is no such target, or there are two.
    """
    found = [(name, kind) for name, kind in target_parameters(space).items() if isinstance(kind, Float)]
    targets = {name for recipe in space.corners() for name in recipe.target.ratios()}
    if len(found) != 1 or len(targets) != 1:
        allowed = "one target with a range, for instance {flops: {float: [0.05, 0.8]}}"
        raise InputError(
            "recipes that go on from the front need somewhere to go", where="space.target", allowed=allowed
        )
    return found[0]


def images_of_trainings(space: Space) -> list[int]:
    """Training images that recipes may have, the fewest first: where they are a range, each twice those before.

    Raises:
        InputError: they are searched, and may be none.
    """
    kind = space.parameters().get(IMAGES)
    if (isinstance(kind, Int) and kind.low == 0) or (isinstance(kind, Choice) and 0 in kind.options):
        raise InputError(
            "no length is a multiple of no images", where=f"space.{IMAGES}", allowed="1 and more, or 0 alone"
        )
    if isinstance(kind, Choice):
        return sorted(option for option in kind.options if isinstance(option, int))
    if isinstance(kind, Int):
        doubled = (kind.low * 2**power for power in range(kind.high.bit_length()))
        return list(dict.fromkeys(images for images in doubled if contains(kind, images)))
    return [space.corners()[0].training.images]


class LineagePlanner:
    """Knows every model that a recipe may go on from, and every step that was taken.

    Args:
        space: bound to the model.
        metric: what models are judged by; what the planner compares is its height.
        dense_metric: of the model as it was handed in.
    """

    def __init__(self, space: Space, metric: MetricSpec, dense_metric: float) -> None:
        self.target, self.range = target_range(space)
        self.cost = self.target.removeprefix("target.")
        self._images = images_of_trainings(space)
        self._searched_images = IMAGES in space.parameters()
        self._metric = metric
        self._dense = Model(number=None, height=metric.height(dense_metric), cost=1.0)
        self.cuts = 0  # recipes that the plan or the sampler had a word in: those that cut something
        self._recipes: dict[int, Recipe] = {}
        self._steps: dict[int, Step] = {}
        self._running: dict[int, Step] = {}
        self._models: dict[int | None, Model] = {None: self._dense}
        self._ended: list[Training] = []
        self._units: deque[float] = deque(maxlen=MEMORY)  # seconds of what counts as 1 in `time_of_training`

    def next_step(self, room: Room = UNLIMITED) -> Step:
        """What the next recipe is to do; it is longer than the shortest only if there is room for it."""
        shortest, *longer = self._images
        images = [shortest, *(number for number in longer if number <= room.images)]
        return next_step(
            Lineages(
                dense=self._dense,
                models=self._front(),
                ended=self._ended,
                tried=list(self._steps.values()),
                running=list(self._running.values()),
                low=self.range.low,
                high=self.range.high,
                lengths=[self._length(number) for number in images],
                time_left=self._time_in(room.seconds),
            )
        )

    def parents(self) -> set[int]:
        """The trials that a recipe may go on from."""
        return {model.number for model in self._front() if model.number is not None}

    def is_cut(self, step: Step) -> bool:
        """Whether the step makes its parent smaller."""
        return step.target < self._models[step.parent].cost

    def settle(self, step: Step, params: Params) -> Params:
        """The sampler's parameters of a recipe that takes the step; what else is in `params` stays."""
        settled = {"weights": FRONT if step.parent is not None else TRAINED, self.target: step.target}
        return {**params, **settled, **({IMAGES: self._images_of(step)} if self._searched_images else {})}

    def descend(self, step: Step, plain: dict[str, Any], seed: int) -> Recipe:
        """The recipe that takes the step.

        All see the same batches, as the teacher's outputs for these are computed once (`training/distillation.py`).
        Other batches for each generation gave a chain of twelve cuts no more: ResNet-20, CIFAR-10, 32,000 images a cut,
        four seeds in turn against one, 89.2 against 89.0 % at half of the FLOPs, 82.0 against 82.4 % at a fifth.

        Args:
            plain: of a recipe that says how.
            seed: of the study, if `plain` has none.
        """
        origin = {"weights": TRAINED} if step.parent is None else {"weights": FRONT, "parent": step.parent}
        return Recipe.from_dict({"seed": seed, **plain, **origin}, "space")

    def train_on(self, step: Step) -> Recipe:
        """The recipe that trains the parent on as it was trained, but for how long, without a cut."""
        assert step.parent is not None
        parent = self._recipes[step.parent]
        training = replace(parent.training, images=self._images_of(step))
        target = Target(**{self.cost: step.target})
        return replace(parent, weights=FRONT, parent=step.parent, target=target, training=training)

    def record_proposal(self, proposal: Proposal) -> None:
        """Note what was handed out."""
        self._recipes[proposal.id] = proposal.recipe
        if proposal.expected is not None:
            self.cuts += bool(proposal.distributions)
            self._steps[proposal.id] = self._running[proposal.id] = self._step_of(proposal.recipe, proposal.expected)

    def record_outcome(self, outcome: Outcome) -> None:
        """Note what came of it."""
        step = self._running.pop(outcome.id, None)
        cost = outcome.costs[self.cost]
        if not outcome.completed or outcome.metric is None or cost is None or outcome.recipe.method.name == DENSE:
            return
        model = Model(number=outcome.id, height=self._metric.height(outcome.metric), cost=cost)
        if step is not None:
            self._ended.append(_training(self._models[step.parent], model, step.length))
            if seconds := sum(outcome.seconds.values()):
                self._units.append(seconds / step.time)
        self._models[outcome.id] = model

    def surprise(self, outcome: Outcome) -> float | None:
        """By how much the height of the metric lies above what was expected; None if nothing was."""
        step = self._steps.get(outcome.id)
        return None if step is None or outcome.metric is None else self._metric.height(outcome.metric) - step.expected

    def _step_of(self, recipe: Recipe, expected: float) -> Step:
        target, length = recipe.target.ratios()[self.cost], self._length(recipe.training.images)
        return Step(parent=recipe.parent, target=target, expected=expected, length=length)

    def _length(self, images: int) -> float:
        return images / self._images[0] if self._images[0] else 1.0  # a space may cut without any training

    def _images_of(self, step: Step) -> int:
        return round(step.length * self._images[0])

    def _time_in(self, seconds: float) -> float:
        """So many seconds as `time_of_training` counts; none before a training has shown how long one takes."""
        if math.isinf(seconds):
            return math.inf
        return seconds / statistics.median(self._units) if self._units else 0.0

    def _front(self) -> list[Model]:
        return front_of(model for number, model in self._models.items() if number is not None)


def _training(parent: Model, child: Model, length: float) -> Training:
    return Training(
        parent_cost=parent.cost,
        parent_height=parent.height,
        cost=child.cost,
        height=child.height,
        length=length,
    )


def without_steps(planner: LineagePlanner, plans: Iterable[Params]) -> list[Params]:
    """How recipes of a plan prune, without where they start and end: that is the policy's to say; none twice."""
    found: list[Params] = []
    for params in plans:
        how = without_step(planner, params)
        if how not in found:
            found.append(how)
    return found


def without_step(planner: LineagePlanner, params: Params) -> dict[str, Any]:
    """How a recipe prunes, in the sampler's words: without where it starts and ends, and how long it trains."""
    return {name: value for name, value in params.items() if name not in ("weights", planner.target, IMAGES)}
