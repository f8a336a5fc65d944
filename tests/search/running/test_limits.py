"""Limits of budgets by hand."""

from autoprune.search.running.limits import Limits
from autoprune.study.config import Budget


def test_limits_of_a_budget():
    assert Limits.of(Budget(minutes=1)) == Limits(deadline=60, grace=30)
    assert Limits.of(Budget(minutes=20, trials=7), start=90) == Limits(trials=7, deadline=1290, grace=120)
    assert Limits.of(Budget(minutes=1)).cut_off_at == 100
    assert Limits.of(Budget(trials=3)).cut_off_at is None


def test_limits_of_the_other_budgets():
    limits = Limits.of(Budget(gpu_hours=0.5, images=77))
    assert (limits.gpu_seconds, limits.images, limits.deadline, limits.patience) == (1800, 77, None, None)
    assert limits.consumes
    assert not Limits.of(Budget(trials=7, until="hypervolume")).consumes
    assert Limits.of(Budget(until="hypervolume", patience=7)).patience == 7
    assert [Budget(patience=3).endless, Budget(images=1).endless, Budget(until="hypervolume").endless] == [1, 0, 0]


def test_a_share_of_the_minutes_is_kept():
    assert Limits.of(Budget(minutes=10), start=30, kept=0.25).deadline == 30 + 450
    assert Limits.of(Budget(minutes=10), start=30).deadline == 30 + 600
    assert Limits.of(Budget(trials=3), kept=0.25).deadline is None
