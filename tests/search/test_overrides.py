"""What callers ask for in place of the configuration: budgets and finalists, and which of them are refused."""

from dataclasses import replace

import fakes
import pytest

from autoprune.errors import InputError
from autoprune.search.options import BudgetOptions, FinalistsOptions
from autoprune.search.overrides import with_budget, with_finalists, with_trackers
from autoprune.study.config import Budget


def test_amounts_that_are_given_replace_all_of_the_space_and_until_is_added():
    config = fakes.study_config(trials=7)
    assert with_budget(config, BudgetOptions()).budget == Budget(trials=7)
    assert with_budget(config, BudgetOptions(minutes=3.0, until="hypervolume")).budget == Budget(
        minutes=3, until="hypervolume"
    )
    assert with_budget(config, BudgetOptions(until="hypervolume")).budget == Budget(trials=7, until="hypervolume")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (BudgetOptions(images=0), "images: 0 is out of range; allowed: above 0"),
        (BudgetOptions(gpu_hours=1.0), "budget.gpu_hours: trials use no GPU"),
        (BudgetOptions(until="doomsday"), "budget.until: unknown end 'doomsday'; allowed: hypervolume, or a mapping"),
        (BudgetOptions(until={"within": -1}), r"budget.until.within: -1.0 is out of range; allowed: \[0, "),
    ],
)
def test_budgets_that_cannot_be_counted_are_refused(given, what):
    with pytest.raises(InputError, match=what):
        with_budget(fakes.study_config(trials=7), given)


def test_a_search_needs_an_end():
    with pytest.raises(InputError, match="no end is given; allowed: trials, minutes, gpu_hours, images, until"):
        with_budget(fakes.study_config(trials=None), BudgetOptions())


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (FinalistsOptions(seeds=0), "finalists.seeds: 0 is out of range"),
        (FinalistsOptions(images=-3), "finalists.images: -3 is out of range"),
    ],
)
def test_numbers_out_of_range(given, what):
    with pytest.raises(InputError, match=what):
        with_finalists(fakes.study_config(), given)


def test_trackers_of_the_command_line_come_beside_those_of_the_space():
    config = replace(fakes.study_config(), trackers=({"name": "mlflow", "uri": "there"},))

    found = with_trackers(config, ["wandb", "mlflow", "wandb"]).trackers
    assert found == ({"name": "mlflow", "uri": "there"}, {"name": "wandb"})
