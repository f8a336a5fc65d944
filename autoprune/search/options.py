"""Options of `search`, `resume` and `finish` that stand in place of what the study's configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

#: What a budget may count, see `Budget`.
AMOUNTS = ("trials", "minutes", "gpu_hours", "images")


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """Fields of `Budget`; None = not given.

    Any amount that is given replaces all amounts of the configuration; `until` is added to them.
    """

    trials: int | None = None
    minutes: float | None = None
    gpu_hours: float | None = None
    images: int | None = None
    until: str | Mapping[str, float] | None = None

    @property
    def amounts(self) -> dict[str, float]:
        """The amounts that are given, by name."""
        return {name: amount for name in AMOUNTS if (amount := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True)
class FinalistsOptions:
    """Fields of `Finalists`; None = as the configuration says."""

    seeds: int | None = None
    images: int | None = None
    most: int | None = None

    @property
    def given(self) -> dict[str, int]:
        """The numbers that are given, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}
