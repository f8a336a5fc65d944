"""GReg, IncReg, L0-HQS and OrthoReg: what their regularisers do to a network while it trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.analysis.claims.mechanisms_common import HALF, UNIFORM, Claim, Found, build, holds, pressed, to
from autoprune.analysis.claims.mechanisms_runs import ONE_SHOT, draw_methods
from autoprune.analysis.claims.methods_cifar10 import Row
from autoprune.engine.allocation.allocate import allocate
from autoprune.engine.keep import Keep
from autoprune.engine.surgery.masking import silence
from autoprune.methods import Method
from autoprune.methods.l0_hqs import Splitting
from autoprune.methods.orthoreg import Orthonormality, diagonal_share
from autoprune.training.protocols import Batch
from autoprune.trial.shared import SharedState

# ---- measuring -------------------------------------------------------------------------------------------------------


def greg(shared: SharedState, images: int) -> Found:
    """Mean |w| of filters and of their batch-norm scales, kept and to be pruned, while the penalty grows."""
    seen: list[list[float]] = []

    def look(step: int, model: nn.Module, regulariser: Any) -> None:
        gone = regulariser.removed
        sides = [[], []], [[], []]
        for parameter, _, units in regulariser.pressed.parameters(model):
            rows = parameter.detach().abs().flatten(1).mean(1) if parameter.dim() > 1 else parameter.detach().abs()
            for lost in (False, True):
                sides[parameter.dim() == 1][lost].append(
                    rows[(gone[units] == lost) & (units < regulariser.units.count)]
                )
        seen.append([step, regulariser.penalty, *(float(torch.cat(rows).mean()) for side in sides for rows in side)])

    pressed(shared, build("greg1"), images, look)
    columns = ("step", "penalty", "filters kept", "filters pruned", "norms kept", "norms pruned")
    return {"columns": columns, "rows": seen[:: max(1, len(seen) // 100)]}


def increg(shared: SharedState, images: int) -> Found:
    """Penalties as shares of the ceiling at every update, where ranks hardly move and where they do."""
    return {
        "pretrained": _penalty_courses(shared, build("increg"), images, shared.model),
        "from scratch, rate 0.1": _penalty_courses(shared, build("increg", lr=0.1), images, shared.task.build()),
        "from scratch, rate 0.1, a gentler penalty": _penalty_courses(
            shared, build("increg", lr=0.1, first=0.9, shrink=10.0), images, shared.task.build()
        ),
    }


def _penalty_courses(shared: SharedState, method: Method, images: int, start: nn.Module) -> Found:
    seen: list[list[float]] = []

    def look(step: int, _model: nn.Module, regulariser: Any) -> None:
        if step % regulariser.every == 0:
            seen.append((regulariser.penalty[:-1] / regulariser.ceiling).tolist())

    _, regulariser = pressed(shared, method, images, look, start=start)
    weakest = allocate(shared.graph, method.score(shared.context(start, 0)), HALF, UNIFORM)
    as_at_first = regulariser.units.outside(weakest) & regulariser.removed
    found = recovered(np.array(seen).T, ~regulariser.removed[:-1].numpy())
    return {
        "every": regulariser.every,
        "chosen as l1 would": float(as_at_first.sum() / regulariser.removed.sum()),
        **found,
    }


def recovered(courses: np.ndarray, alive: np.ndarray) -> Found:
    """Units that stay though their penalty was once above a hundredth of the ceiling, and how far it fell again."""
    peak = courses.max(1)
    spared = np.flatnonzero((peak > 0.01) & alive)
    gone = np.flatnonzero(~alive)
    return {
        "pressed and alive": len(spared),
        "of them under no penalty at the end": int((courses[spared, -1] == 0).sum()),
        "recovering": _highest_courses(courses, spared),
        "removed": _highest_courses(courses, gone),
    }


def _highest_courses(courses: np.ndarray, units: np.ndarray) -> list[list[float]]:
    order = units[np.argsort(-courses[units].max(1))][:8] if len(units) else units
    return [[round(x, 4) for x in courses[unit]] for unit in order]


def l0_hqs(shared: SharedState, images: int) -> Found:
    """Saliencies of every group before and after, sorted, over their group's median; the gaps at the cut."""
    method = build("l0_hqs")
    context, regulariser = pressed(shared, method, images, lambda step, model, regulariser: None)
    assert isinstance(regulariser, Splitting)
    scores = method.score(context)
    selection = method.select(context, scores, HALF, UNIFORM)
    both = {group: [sorted(values[group].tolist()) for values in (regulariser.before, scores)] for group in scores}
    lost = {group: len(scores[group]) - len(kept) for group, kept in selection.keep.kept}
    return {"groups": both, "lost": lost, **selection.notes}


def orthoreg(shared: SharedState, images: int) -> Found:
    """How correlated filters are, and how far the loss that groups of filters cost is the sum of what each costs."""
    found: Found = {"before": _loss_additivity(shared, shared.model)}
    for name, instead in (("plain", Orthonormality(0.0)), ("orthoreg", None)):
        shares: list[list[float]] = []

        def look(step: int, model: nn.Module, _regulariser: Any, shares: list[list[float]] = shares) -> None:
            if step % 10 == 0:
                with torch.no_grad():
                    shares.append([step, float(diagonal_share(model))])

        context, _ = pressed(shared, build("orthoreg"), images, look, instead=instead)
        found[name] = {**_loss_additivity(shared, context.model), "diagonal share": shares}
    return found


#: Filters that are looked at in each of three groups, one per stage of the network; how many go together, how often.
LOOKED_AT, TOGETHER, DRAWS = 12, 4, 16


def _loss_additivity(shared: SharedState, model: nn.Module) -> Found:
    """Loss that single filters cost, and that random sets of them cost together, on 512 training images."""
    batches = list(shared.context(model, 7).batches(512))
    dense, random = _mean_loss(shared, model, batches), np.random.default_rng(0)
    pairs: list[list[float]] = []
    for group in (shared.graph.by_id[f"layer{i}.1.conv1"] for i in (1, 2, 3)):
        units = sorted(random.choice(group.size, min(LOOKED_AT, group.size), replace=False).tolist())

        def cost(gone: Sequence[int], name: str = group.id, size: int = group.size) -> float:
            keep = Keep.of({name: sorted(set(range(size)) - set(gone))})
            return _mean_loss(shared, silence(model, shared.graph, keep), batches) - dense

        single = {unit: cost([unit]) for unit in units}
        for _ in range(DRAWS):
            gone = random.choice(units, TOGETHER, replace=False).tolist()
            pairs.append([sum(single[unit] for unit in gone), cost(gone)])
    sums, together = np.array(pairs).T
    return {
        "pairs": pairs,
        "correlation": float(np.corrcoef(sums, together)[0, 1]),
        "off by": float(np.median(np.abs(together - sums) / np.maximum(np.abs(together), 1e-9))),
    }


@torch.no_grad()
def _mean_loss(shared: SharedState, model: nn.Module, batches: Sequence[Batch]) -> float:
    model = shared.runtime.place(model).eval()
    with shared.runtime.limits():
        losses = [shared.task.loss(model, shared.runtime.arrange(batch)).value for batch in batches]
    return float(torch.stack(losses).mean())


# ---- drawing ---------------------------------------------------------------------------------------------------------


def draw_greg(axes: Any, found: Found, runs: Sequence[Row]) -> None:
    """Course of the weights; accuracy of growing and of one shot."""
    columns = dict(zip(found["columns"], np.array(found["rows"]).T, strict=True))
    for name in found["columns"][2:]:
        style = {"linestyle": "-" if "kept" in name else "--", "color": "C0" if "filters" in name else "C1"}
        axes[0].semilogy(columns["step"], columns[name] / columns[name][0], label=name, **style)
    axes[0].set(xlabel="step of the stage", ylabel="mean |w| relative to the start", title="GReg-1: the penalty grows")
    axes[0].legend()
    draw_methods(axes[1], runs, (ONE_SHOT, "l1", "greg1", "greg2"), "one shot or growing")


def draw_increg(axes: Any, found: Found, _runs: Sequence[Row]) -> None:
    """Courses of penalties."""
    high = found["from scratch, rate 0.1, a gentler penalty"]
    for axis, name in zip(axes, ("recovering", "removed"), strict=True):
        for course in high[name]:
            axis.plot(np.arange(len(course)) * high["every"], course)
        axis.set(xlabel="step of the stage", ylabel="penalty / ceiling", title=f"IncReg, from scratch: units {name}")


def draw_l0_hqs(axes: Any, found: Found, _runs: Sequence[Row]) -> None:
    """Saliencies, sorted."""
    for axis, moment, title in zip(axes, (0, 1), ("before", "after"), strict=True):
        for values in found["groups"].values():
            ordered = np.array(values[moment])
            axis.semilogy(np.linspace(0, 1, len(ordered)), ordered / np.median(ordered), marker=".", alpha=0.7)
        axis.set(
            xlabel="units, sorted", ylabel="saliency / median", title=f"L0-HQS: saliencies {title}", ylim=(1e-6, 10)
        )


def draw_orthoreg(axes: Any, found: Found, _runs: Sequence[Row]) -> None:
    """Correlation of filters; losses of sets over the sums of their members'."""
    for name in ("plain", "orthoreg"):
        steps, shares = np.array(found[name]["diagonal share"]).T
        axes[0].plot(steps, 1 - shares, label=name)
        axes[1].plot(*np.array(found[name]["pairs"]).T, ".", label=name)
    axes[0].set(xlabel="step of the stage", ylabel="off-diagonal share of |G|", title="OrthoReg: filters' correlation")
    axes[1].axline((0, 0), slope=1, color="grey", linewidth=0.8)
    axes[1].set(xlabel="sum of single losses", ylabel="loss together", title=f"{TOGETHER} filters of a layer")
    for axis in axes:
        axis.legend()


# ---- claims ----------------------------------------------------------------------------------------------------------


def l0_hqs_claims(found: Found) -> Iterator[Claim]:
    """On the gap."""
    gaps = found["gap_before"], found["gap_after"]
    measured = f"geometric mean over groups {to(*gaps)}"
    yield "L0-HQS: the saliency gap widens at least ten times", measured, holds(gaps[1] >= 10 * gaps[0])


def increg_claims(found: Found) -> Iterator[Claim]:
    """On recovery, from three starts."""
    for start, one in found.items():
        if isinstance(one, dict):
            yield _increg_claim(start, one)


def _increg_claim(start: str, found: Found) -> tuple[str, str, str]:
    fell, of = found["of them under no penalty at the end"], found["pressed and alive"]
    measured = (
        f"of {of} units that stay though their penalty was above a hundredth of the ceiling, {fell} end without any; "
        f"{found['chosen as l1 would']:.1%} of the removed are those that `l1` removes at the start"
    )
    return f"IncReg, {start}: the penalty of a recovering unit falls again", measured, holds(of > 0 and fell > of / 2)


def orthoreg_claims(found: Found) -> Iterator[Claim]:
    """On correlation and additivity."""
    plain, regular = found["plain"], found["orthoreg"]
    ends = [1 - found["diagonal share"][-1][1] for found in (plain, regular)]
    measured = f"off-diagonal share of the Gram matrices, without and with the penalty: {to(*ends)}"
    yield "OrthoReg: correlation between filters falls", measured, holds(ends[1] < ends[0])
    measured = (
        f"median distance of the loss of {TOGETHER} filters from the sum of single ones, relative, without and with: "
        f"{to(plain['off by'], regular['off by'])}; correlation {to(plain['correlation'], regular['correlation'])}"
    )
    better = regular["off by"] < 0.9 * plain["off by"]  # a tenth nearer at least
    yield "OrthoReg: importance of groups becomes additive", measured, holds(better)


MEASURED = {"greg": greg, "increg": increg, "l0_hqs": l0_hqs, "orthoreg": orthoreg}
CLAIMS = {"orthoreg": orthoreg_claims, "l0_hqs": l0_hqs_claims, "increg": increg_claims}
PICTURES = {"greg": draw_greg, "orthoreg": draw_orthoreg, "l0_hqs": draw_l0_hqs, "increg": draw_increg}
