"""Changes to a study's configuration that the command line or a caller asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autoprune.errors import InputError, check_name
from autoprune.schema import read, to_plain
from autoprune.search.options import AMOUNTS, BudgetOptions, FinalistsOptions
from autoprune.search.prepare import Prepared
from autoprune.search.proposing import first_recipes
from autoprune.study.config import Finalists, Sampler, StudyConfig
from autoprune.study.folder import Study


def with_budget(config: StudyConfig, options: BudgetOptions) -> StudyConfig:
    """The configuration with another budget.

    Raises:
        InputError: neither the options nor the configuration says when to end, or an amount cannot be counted here.
    """
    for name, amount in options.amounts.items():
        if not amount > 0:
            raise InputError(f"{amount!r} is out of range", where=name, allowed="above 0")
    budget = config.budget
    if options.amounts:
        budget = replace(budget, **{name: getattr(options, name) for name in AMOUNTS})
    if options.until:
        budget = replace(budget, until=options.until)
    if budget.endless and budget.goal is not None:
        what = f"no model may come within {budget.goal.within:g} of the dense one, and the search go on for ever"
        raise InputError(what, where="budget.until", allowed=f"one of {', '.join(AMOUNTS)} beside it")
    if budget.endless:
        raise InputError("no end is given", where="budget", allowed=", ".join((*AMOUNTS, "until")))
    if budget.gpu_hours is not None and not config.resources.gpus:
        raise InputError("trials use no GPU", where="budget.gpu_hours", allowed="another budget on CPUs")
    return replace(config, budget=budget)


def with_sampler(config: StudyConfig, name: str | None) -> StudyConfig:
    """The configuration with another sampler, if one is given; raises `InputError` if there is none of that name."""
    if name is None:
        return config
    names = Sampler.__dataclass_fields__["name"].metadata["choices"]
    check_name(name, names, kind="sampler")
    return replace(config, sampler=replace(config.sampler, name=name))


def with_trackers(config: StudyConfig, names: Sequence[str]) -> StudyConfig:
    """The configuration with trackers that it does not have yet, without options."""
    known = {tracker.get("name") for tracker in config.trackers}
    new = [name for name in dict.fromkeys(names) if name not in known]
    return replace(config, trackers=(*config.trackers, *({"name": name} for name in new)))


def with_finalists(config: StudyConfig, options: FinalistsOptions) -> StudyConfig:
    """The configuration with other finalists; raises `InputError` if a number is out of range."""
    return replace(config, finalists=read(Finalists, {**to_plain(config.finalists), **options.given}, "finalists"))


def warm_started(prepared: Prepared, earlier: Study | None) -> Prepared:
    """The same study, with the front of an earlier one among its first recipes; at most half of all that come first.

    The other half is for what the earlier study did not have. The recipes become part of the configuration, so a
    resumed search does not need the folder they came from.

    Raises:
        InputError, StudyError: as for `first_recipes.from_front`.
    """
    if earlier is None:
        return prepared
    sampler = prepared.config.sampler
    taken = first_recipes.from_front(earlier, prepared.space, most=max(-(-sampler.startup // 2), 1))
    sampler = replace(sampler, first=(*sampler.first, *taken))
    return replace(prepared, config=replace(prepared.config, sampler=sampler))
