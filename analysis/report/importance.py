"""Which settings mattered, at equal cost: the share of the differences between models that each of them explains."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.analysis.report import facts
from autoprune.analysis.report.settings import by_group, grouped, varying
from autoprune.analysis.report.trust import mean_ranks
from autoprune.study.folder import Study
from autoprune.study.outcome import Outcome

#: Completed trials that must have a setting before anything is said of it, and that each of its groups must have.
FEWEST, FEWEST_IN_GROUP = 20, 3


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What a setting explains.

    Fields:
        name: of the setting.
        share: of the variance of ranks at equal cost, in [0, 1], less what as many groups drawn at random would explain
            (omega squared); 0 = not told from chance.
        best: the group of values that did best.
        trials: that have the setting.
    """

    name: str
    share: float
    best: str
    trials: int


def importance(study: Study, table: Sequence[Mapping[str, Hashable]]) -> list[Importance]:
    """Settings of searched recipes that completed, the most important first; none where too few completed.

    Args:
        study: see above.
        table: the settings of each of its outcomes.
    """
    rows = [row for row, one in enumerate(study.outcomes) if _counts(study, one)]
    if len(rows) < FEWEST:
        return []
    ranks, settings = _ranks_at_equal_cost(study, [study.outcomes[row] for row in rows]), [table[row] for row in rows]
    names = [name for name in varying(settings) if not name.startswith("target.") and name != "seed"]
    found = [_importance_of(name, [one.get(name) for one in settings], ranks) for name in names]
    return sorted((one for one in found if one is not None), key=lambda one: -one.share)


def _counts(study: Study, outcome: Outcome) -> bool:
    return outcome.completed and not outcome.control and facts.cost_ratio(study, outcome) is not None


def _ranks_at_equal_cost(study: Study, done: Sequence[Outcome]) -> np.ndarray:
    """Ranks of heights, less what the cost, and the height of the parent if there are parents, lead to expect."""
    heights = {one.id: study.tradeoff.height(one) or 0.0 for one in study.outcomes}
    cost = mean_ranks(np.array([facts.cost_ratio(study, one) for one in done], dtype=float)) / len(done) - 0.5
    start = mean_ranks(np.array([heights.get(one.recipe.parent or -1, 1.0) for one in done])) / len(done) - 0.5
    known = np.stack([np.ones(len(done)), cost, cost**2, cost**3, start], axis=1)
    ranks = mean_ranks(np.array([heights[one.id] for one in done]))
    fitted: np.ndarray = known @ np.linalg.lstsq(known, ranks, rcond=None)[0]
    return ranks - fitted


def _importance_of(name: str, values: Sequence[Hashable | None], ranks: np.ndarray) -> Importance | None:
    have = np.array([value is not None for value in values])
    cells = {key: cell for key, cell in by_group(grouped(values), ranks).items() if len(cell) >= FEWEST_IN_GROUP}
    if have.sum() < FEWEST or len(cells) < 2:
        return None
    best = max(cells, key=lambda key: cells[key].mean())
    return Importance(name=name, share=_omega_squared(list(cells.values())), best=best, trials=int(have.sum()))


def _omega_squared(cells: Sequence[np.ndarray]) -> float:
    """The share of the variance between groups, less what chance puts there."""
    everything = np.concatenate(cells)
    within = sum(float(((cell - cell.mean()) ** 2).sum()) for cell in cells)
    total = float(((everything - everything.mean()) ** 2).sum())
    freedom = len(everything) - len(cells)
    if not total or not freedom:
        return 0.0
    noise = within / freedom
    return max(0.0, (total - within - (len(cells) - 1) * noise) / (total + noise))
