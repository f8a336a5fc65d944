"""choose: which models of a study would be handed over, as a table; nothing is written."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from autoprune.cli.common import member_facts, slower_line, without_collector
from autoprune.cli.picking import Wish, picked_wishes
from autoprune.cli.view import print_json, show
from autoprune.cli.wrapping import say
from autoprune.errors import InputError
from autoprune.study import choosing
from autoprune.study.folder import Study, load_study
from autoprune.study.metric import MetricSpec
from autoprune.study.outcome import Outcome
from autoprune.study.tradeoff import COSTS

#: A wish with the model that it picks, or with the reason why it picks none.
Choice = tuple[Wish, Outcome | InputError]


def choose(args: Namespace) -> None:
    """Print the model that each wish picks; `InputError` if none picks any."""
    with without_collector():
        study = load_study(args.folder)
        choices = [(wish, _picked(study, wish, args)) for wish in picked_wishes(args, study)]
        failures = [found for _, found in choices if isinstance(found, InputError)]
        if len(failures) == len(choices):
            raise failures[0]
        if args.json:
            print_json({"study": str(study.folder.path), "choices": [_choice_facts(study, *one) for one in choices]})
        else:
            _print_choices(study, choices)


def _picked(study: Study, wish: Wish, args: Namespace) -> Outcome | InputError:
    try:
        return choosing.choose(study, wish.limits, searched=args.searched)
    except InputError as nothing:
        return nothing


def _choice_facts(study: Study, wish: Wish, found: Outcome | InputError) -> dict[str, Any]:
    """One choice in plain data."""
    facts: dict[str, Any] = {"choice": wish.text, "limits": dict(wish.limits)}
    if isinstance(found, InputError):
        return {**facts, "error": str(found)}
    tested = {} if found.member is None else {f"test_{study.metric.name}": found.test_metric}
    return {**facts, **member_facts(found, study.metric), **tested, "trained_again": found.member is not None}


def _print_choices(study: Study, choices: list[Choice]) -> None:
    metric, dense = study.metric, study.dense_metric
    beside = "" if dense is None else f"; dense: {metric.name} {metric.shown(dense)}"
    rows = [_row(study, *one) for one in choices]
    columns = max(rows, key=len)  # of a wish that picks a model
    used = [name for name in columns if any(row.get(name) is not None for row in rows)]
    rows = [{name: row.get(name) for name in used} for row in rows]
    numbers = ("trial", metric.name, "off", "test", *COSTS, "ms")
    show(rows, title=f"models of {study.folder.path}{beside}", numbers=numbers)
    for line in _remarks(study, choices):
        say(line)


def _row(study: Study, wish: Wish, found: Outcome | InputError) -> dict[str, Any]:
    metric, dense = study.metric, study.dense_metric
    if isinstance(found, InputError):
        return {"choice": wish.text, "trial": None}
    value = found.metric or 0.0
    costs = {name: _share(found.costs[name]) for name in dict.fromkeys(("flops", *study.tradeoff.costs))}
    return {
        "choice": wish.text,
        "trial": str(found.id),
        "method": found.recipe.method.name,
        metric.name: _shown(value, metric),
        "off": None if dense is None else metric.shown_difference(value - dense).removesuffix(" points"),
        "test": None if found.test_metric is None else _shown(found.test_metric, metric),
        **costs,
        "ms": None if found.latency_ms is None else f"{found.latency_ms:.3g}",
    }


def _shown(value: float, metric: MetricSpec) -> str:
    """Without the blank before the sign: at 80 columns a table would break the line there."""
    return metric.shown(value).replace(" %", "%")


def _share(ratio: float | None) -> str | None:
    return None if ratio is None else f"{ratio:.1%}"


def _remarks(study: Study, choices: list[Choice]) -> Iterator[str]:
    """What the table does not say: wishes that nothing meets, models slower than the dense one, what is next."""
    for wish, found in choices:
        if isinstance(found, InputError):
            yield f"{wish.text}: {found}"
    picked = {found.id: found for _, found in choices if not isinstance(found, InputError)}
    for model in picked.values():
        if (line := slower_line(model)) is not None:
            yield line
    again = [number for number, model in picked.items() if model.member is not None]
    if again:
        yield f"trained again, and handed over so: {', '.join(map(str, sorted(again)))}"
    first, folder = next(iter(picked)), study.folder.path
    command = shlex.join(["autoprune", "export", str(folder), "--trial", str(first), "--to", f"{folder}/trial{first}"])
    yield f"hand over: {command}"
