"""Feasibility: which recipes cannot work, as far as the model and their lengths say before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

from autoprune import methods
from autoprune.engine.allocation.allocate import check_target, check_widths, smallest
from autoprune.engine.cost import cost
from autoprune.engine.graph import ChannelGraph
from autoprune.engine.keep import Keep
from autoprune.errors import InputError
from autoprune.methods import Method
from autoprune.recipe import Allocation, MethodChoice, Recipe, Target, stable_hash
from autoprune.training.fit import steps_of
from autoprune.trial.shared import SharedState, TracedModel, where_possible
from autoprune.trial.start import target_of_cut

#: One of `check_target` and `check_widths`.
CheckTarget = Callable[[ChannelGraph, Target, Allocation, frozenset[str]], None]


@dataclass(frozen=True, eq=False)
class Prunable:
    """What a method may prune: the graph of the model as it prepares it, and the ids of the groups in it."""

    graph: ChannelGraph
    groups: frozenset[str]


class Feasibility:
    """Knows of a recipe, in milliseconds, whether its method has enough steps and its target can be met.

    A recipe that goes on from another one is judged by the dense model: what that can reach its parent can reach too.
    Whether some widths come near enough to the target only its parent's graph would tell.
    """

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._known: dict[str, list[Prunable] | InputError] = {}

    def refusal(self, recipe: Recipe) -> InputError | None:
        """Why the recipe cannot work; None if nothing is known against it."""
        try:
            self.check(recipe)
        except InputError as error:
            return error
        return None

    def check(self, recipe: Recipe) -> None:
        """Raise `InputError` if the recipe cannot work.

        Raises:
            TargetError: no widths that its method and allocation may choose meet its target.
            InputError: its method needs more steps, or another model.
        """
        if not methods.build(recipe.method).is_dense:
            self.check_method(recipe)
            self._check_target(recipe, check_target if recipe.weights == "front" else check_widths)

    def check_reach(self, recipe: Recipe) -> None:
        """Raise `TargetError` if the recipe's target is below what its method and allocation can reach."""
        self._check_target(recipe, check_target)

    def check_method(self, recipe: Recipe) -> None:
        """Raise `InputError` if the recipe's method needs more steps than there are, or another model."""
        method, training = methods.build(recipe.method), recipe.training
        steps = steps_of(training, training.images, len(self._shared.task.train))
        if steps < method.least_steps:
            images = method.least_steps * training.batch_size
            what = f"{method.name} needs {method.least_steps:,} steps, {training.images:,} images give {steps:,}"
            raise InputError(what, where="training.images", allowed=f"{images:,} images or more")
        self._prunable(method, recipe.allocation.grouped)

    def smallest_ratios(self, choice: MethodChoice, allocation: Allocation) -> dict[str, float]:
        """The lowest cost ratios that a method can reach under an allocation; raises as `check_method`."""
        found = self._prunable(methods.build(choice), allocation.grouped)
        dense = self._shared.dense_cost
        ratios = [smallest(prunable.graph, allocation, prunable.groups).ratios(dense) for prunable in found]
        return {name: min(each[name] for each in ratios) for name in ratios[0]}

    def _check_target(self, recipe: Recipe, check: CheckTarget) -> None:
        method, known = methods.build(recipe.method), replace(recipe, target=replace(recipe.target, latency=None))

        def check_mode(prunable: Prunable) -> None:
            target = self._target(prunable, method, known)
            check(prunable.graph, target, recipe.allocation, prunable.groups)

        where_possible(check_mode, self._prunable(method, recipe.allocation.grouped))

    def _target(self, prunable: Prunable, method: Method, recipe: Recipe) -> Target:
        """The recipe's target, relative to the model as the method prepares it."""
        last, began = len(method.stage_shares) - 1, cost(prunable.graph, Keep.all())
        return target_of_cut(recipe.target, method, prunable.graph, last, began, self._shared.dense_cost)

    def _prunable(self, method: Method, grouped: str) -> Sequence[Prunable]:
        """In each of the grouping modes that an allocation allows; what differs in numbers alone is asked for once."""
        choices = {field.name: _choice(getattr(method, field.name)) for field in fields(method)}
        key = stable_hash([method.name, choices, grouped])
        if key not in self._known:
            try:
                self._known[key] = [self._find(method, traced) for traced in self._shared.traced_models(grouped)]
            except InputError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, InputError):
            raise found
        return found

    def _find(self, method: Method, traced: TracedModel) -> Prunable:
        model = method.prepare(traced.model)
        graph = traced.graph if model is traced.model else traced.graph_of(model)
        return Prunable(graph, frozenset(method.groups(self._shared.context(model, seed=0, graph=graph))))


def _choice(value: object) -> object:
    """A hyper-parameter as far as the groups that a method prunes may depend on it; see `Method.groups`."""
    return value == 0 if isinstance(value, (int, float)) and not isinstance(value, bool) else value
