"""Settings of recipes as names, values and groups."""

from __future__ import annotations

from collections.abc import Hashable

import pytest

from autoprune.analysis.report.settings import grouped, settings_of, varying
from autoprune.recipe import Allocation, MethodChoice, Recipe


def test_groups_of_values() -> None:
    assert grouped(["a", None, "b"]) == ["a", None, "b"]
    assert grouped([64, 128, 64]) == ["64", "128", "64"]
    many = grouped([float(n) for n in range(11)])
    assert (many[0], many[2], many[3], many[10]) == ("0 to 2", "0 to 2", "2 to 4", "8 to 10")


def test_weights_and_prices_of_groups_are_settings_of_their_own() -> None:
    def settings(price: float) -> dict[str, Hashable]:
        allocation = Allocation(per="given", prices={"a": price, "b": 1.0}, ratios={"c": 0.25})
        return settings_of(Recipe(method=MethodChoice(name="l1"), allocation=allocation))

    assert settings(0.5)["allocation.c"] == 0.25
    assert varying([settings(0.5), settings(0.75)]) == ["allocation.prices.a"]


def test_only_what_differs_varies() -> None:
    assert varying([{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 3, "c": 5}]) == ["b", "c"]


@pytest.mark.parametrize(("value", "text"), [(True, "yes"), (0.0123456, "0.0123"), ("max", "max")])
def test_a_group_is_called_as_its_value(value: object, text: str) -> None:
    assert grouped([value]) == [text]
