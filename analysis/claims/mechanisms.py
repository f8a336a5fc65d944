"""What papers say happens inside a network while it is pruned, looked at in real runs of ResNet-20 on CIFAR-10.

    python -m autoprune.analysis.claims.mechanisms DATA [--images 25600] [--only NAME ...]    measure -> mechanisms.json
    python -m autoprune.analysis.claims.mechanisms --draw --runs RUNS.jsonl                   figures, mechanisms.md

DATA as for `methods_cifar10`; RUNS are its rows. Measuring trains copies of the pretrained network under the pressure
of a method, at its default hyper-parameters, for half of the FLOPs, and looks into them as they train. Two of the
claims, growing against one-shot removal and softer against soft, are read from RUNS.

Drawing needs matplotlib (the `dev` extra).
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autoprune import methods
from autoprune.allocate import allocate
from autoprune.analysis.benchmarks.train_speed import machine
from autoprune.analysis.claims.methods_cifar10 import TRAINING, Row, bench_of, label, read_rows
from autoprune.keep import Keep
from autoprune.masking import silence
from autoprune.methods import Context, Method, Stage
from autoprune.methods.l0_hqs import Splitting
from autoprune.methods.orthoreg import Orthonormality, diagonal_share
from autoprune.recipe import Allocation, MethodChoice, Target
from autoprune.train import fit, steps_of
from autoprune.trial import Bench

HERE = Path(__file__).parent
DATA = HERE / "mechanisms.json"
Found = dict[str, Any]
HALF, UNIFORM = Target(flops=0.5), Allocation(name="uniform")
Look = Callable[[int, nn.Module, Any], None]


@dataclass
class _Watched:
    """A pressure that is looked at after every step."""

    pressure: Any
    look: Look

    def before_step(self, model: nn.Module, step: int, steps: int) -> None:
        self.pressure.before_step(model, step, steps)

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        self.pressure.after_step(model, step, steps)
        self.look(step, model, self.pressure)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = self.pressure.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pressure.load_state_dict(state)


def pressed(
    bench: Bench, method: Method, images: int, look: Look, *, instead: Any = None, start: nn.Module | None = None
) -> tuple[Context, Any]:
    """A copy of a model after a sparsify stage of the method, and the pressure with what it found.

    Args:
        look: called after every step.
        instead: a pressure to use in place of the method's own.
        start: the model; default: the pretrained one.
    """
    training = method.stage_training(replace(TRAINING, images=images))
    steps = steps_of(training, images, len(bench.task.train))
    context = bench.context(bench.runtime.place(copy.deepcopy(start or bench.model)), 0)
    stage = Stage(HALF, UNIFORM, training, steps)
    pressure = instead or method.sparsify(context, stage)
    watched = _Watched(pressure, look)
    fit(context.model, bench.task, training, bench.runtime, images=images, seed=0, pressure=watched)
    return replace(context, pressure=pressure), pressure


def build(name: str, **params: Any) -> Method:
    """The method with these hyper-parameters."""
    return methods.build(MethodChoice(name=name, params=params))


# ---- measuring -------------------------------------------------------------------------------------------------------


def greg(bench: Bench, images: int) -> Found:
    """Mean |w| of filters and of their batch-norm scales, kept and to be pruned, while the penalty grows."""
    seen: list[list[float]] = []

    def look(step: int, model: nn.Module, pressure: Any) -> None:
        gone = pressure.removed
        sides = [[], []], [[], []]
        for parameter, _, units in pressure.pressed.parameters(model):
            rows = parameter.detach().abs().flatten(1).mean(1) if parameter.dim() > 1 else parameter.detach().abs()
            for lost in (False, True):
                sides[parameter.dim() == 1][lost].append(rows[(gone[units] == lost) & (units < pressure.units.count)])
        seen.append([step, pressure.penalty, *(float(torch.cat(rows).mean()) for side in sides for rows in side)])

    pressed(bench, build("greg1"), images, look)
    columns = ("step", "penalty", "filters kept", "filters pruned", "norms kept", "norms pruned")
    return {"columns": columns, "rows": seen[:: max(1, len(seen) // 100)]}


def increg(bench: Bench, images: int) -> Found:
    """Penalties as shares of the ceiling at every update, where ranks hardly move and where they do."""
    return {
        "pretrained": _penalties(bench, build("increg"), images, bench.model),
        "from scratch, rate 0.1": _penalties(bench, build("increg", lr=0.1), images, bench.task.build()),
        "from scratch, rate 0.1, a gentler penalty": _penalties(
            bench, build("increg", lr=0.1, first=0.9, shrink=10.0), images, bench.task.build()
        ),
    }


def _penalties(bench: Bench, method: Method, images: int, start: nn.Module) -> Found:
    seen: list[list[float]] = []

    def look(step: int, _model: nn.Module, pressure: Any) -> None:
        if step % pressure.every == 0:
            seen.append((pressure.penalty[:-1] / pressure.ceiling).tolist())

    _, pressure = pressed(bench, method, images, look, start=start)
    weakest = allocate(bench.graph, method.score(bench.context(start, 0)), HALF, UNIFORM)
    as_at_first = pressure.units.outside(weakest) & pressure.removed
    found = _recovered(np.array(seen).T, ~pressure.removed[:-1].numpy())
    return {"every": pressure.every, "chosen as l1 would": float(as_at_first.sum() / pressure.removed.sum()), **found}


def _recovered(courses: np.ndarray, alive: np.ndarray) -> Found:
    """Units that stay though their penalty was once above a hundredth of the ceiling, and how far it fell again."""
    peak = courses.max(1)
    spared = np.flatnonzero((peak > 0.01) & alive)
    gone = np.flatnonzero(~alive)
    return {
        "pressed and alive": len(spared),
        "of them under no penalty at the end": int((courses[spared, -1] == 0).sum()),
        "recovering": _highest(courses, spared),
        "removed": _highest(courses, gone),
    }


def _highest(courses: np.ndarray, units: np.ndarray) -> list[list[float]]:
    order = units[np.argsort(-courses[units].max(1))][:8] if len(units) else units
    return [[round(x, 4) for x in courses[unit]] for unit in order]


def l0_hqs(bench: Bench, images: int) -> Found:
    """Saliencies of every group before and after, sorted, over their group's median; the gaps at the cut."""
    method = build("l0_hqs")
    context, pressure = pressed(bench, method, images, lambda step, model, pressure: None)
    assert isinstance(pressure, Splitting)
    scores = method.score(context)
    keep = method.select(context, scores, HALF, UNIFORM)
    both = {group: [sorted(values[group].tolist()) for values in (pressure.before, scores)] for group in scores}
    lost = {group: len(scores[group]) - len(kept) for group, kept in keep.kept}
    return {"groups": both, "lost": lost, **method.notes(context, keep)}


def orthoreg(bench: Bench, images: int) -> Found:
    """How correlated filters are, and how far the loss that groups of filters cost is the sum of what each costs."""
    found: Found = {"before": _additivity(bench, bench.model)}
    for name, instead in (("plain", Orthonormality(0.0)), ("orthoreg", None)):
        shares: list[list[float]] = []

        def look(step: int, model: nn.Module, _pressure: Any, shares: list[list[float]] = shares) -> None:
            if step % 10 == 0:
                with torch.no_grad():
                    shares.append([step, float(diagonal_share(model))])

        context, _ = pressed(bench, build("orthoreg"), images, look, instead=instead)
        found[name] = {**_additivity(bench, context.model), "diagonal share": shares}
    return found


#: Filters that are looked at in each of three groups, one per stage of the network; how many go together, how often.
LOOKED_AT, TOGETHER, DRAWS = 12, 4, 16


def _additivity(bench: Bench, model: nn.Module) -> Found:
    """Loss that single filters cost, and that random sets of them cost together, on 512 training images."""
    batches = list(bench.context(model, 7).batches(512))
    dense, random = _loss(bench, model, batches), np.random.default_rng(0)
    pairs: list[list[float]] = []
    for group in (bench.graph.by_id[f"layer{i}.1.conv1"] for i in (1, 2, 3)):
        units = sorted(random.choice(group.size, min(LOOKED_AT, group.size), replace=False).tolist())

        def cost(gone: Sequence[int], name: str = group.id, size: int = group.size) -> float:
            keep = Keep.of({name: sorted(set(range(size)) - set(gone))})
            return _loss(bench, silence(model, bench.graph, keep), batches) - dense

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
def _loss(bench: Bench, model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    model = bench.runtime.place(model).eval()
    with bench.runtime.limits():
        losses = [bench.task.loss(model(bench.runtime.arrange(inputs)), labels) for inputs, labels in batches]
    return float(torch.stack(losses).mean())


MEASURED = {"greg": greg, "increg": increg, "l0_hqs": l0_hqs, "orthoreg": orthoreg}


def measure(data: Path, images: int, only: Sequence[str]) -> None:
    """Measure what was asked for and write it beside what was measured before."""
    bench = bench_of(data, "validation")
    for name in only:
        known = json.loads(DATA.read_text()) if DATA.exists() else {}
        found = {"images": images, "machine": machine(), **MEASURED[name](bench, images)}
        DATA.write_text(json.dumps({**known, name: found}, indent=None) + "\n")
        print(name, {key: value for key, value in found.items() if isinstance(value, (int, float, str, bool))})


# ---- drawing ---------------------------------------------------------------------------------------------------------


def draw(known: Found, runs: Sequence[Row], folder: Path) -> None:
    """One SVG per mechanism, and `mechanisms.md` with what holds."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("svg")
    plt.rcParams.update({"svg.hashsalt": "autoprune", "svg.fonttype": "none", "figure.figsize": (9, 3.4)})
    for name, picture in PICTURES.items():
        figure, axes = plt.subplots(1, 2, layout="constrained")
        picture(axes, known.get(name, {}), runs)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
    (folder / "mechanisms.md").write_text(page(known, runs))


def _draw_greg(axes: Any, found: Found, runs: Sequence[Row]) -> None:
    columns = dict(zip(found["columns"], np.array(found["rows"]).T, strict=True))
    for name in found["columns"][2:]:
        style = {"linestyle": "-" if "kept" in name else "--", "color": "C0" if "filters" in name else "C1"}
        axes[0].semilogy(columns["step"], columns[name] / columns[name][0], label=name, **style)
    axes[0].set(xlabel="step of the stage", ylabel="mean |w| relative to the start", title="GReg-1: the penalty grows")
    axes[0].legend()
    _draw_methods(axes[1], runs, (ONE_SHOT, "l1", "greg1", "greg2"), "one shot or growing")


def _draw_soft(axes: Any, _found: Found, runs: Sequence[Row]) -> None:
    family = ("sfp", "asfp", "srfp", "asrfp")
    _draw_methods(axes[0], runs, family, "before fine-tuning", "before")
    _draw_methods(axes[1], runs, family, "after", "after")


def _draw_methods(axis: Any, runs: Sequence[Row], names: Sequence[str], title: str, column: str = "after") -> None:
    for name in names:
        points = [(row["flops"], 100 * row[column]) for row in runs if label(row) == name and row[column]]
        means = sorted({flops: np.mean([a for f, a in points if f == flops]) for flops, _ in points}.items())
        axis.plot(*zip(*means, strict=True), marker="o", label=name)
    axis.set(xlabel="share of the FLOPs", ylabel="accuracy, %", title=title)
    axis.set_xticks(sorted({row["flops"] for row in runs if label(row) in names}))
    axis.legend()


def _draw_increg(axes: Any, found: Found, _runs: Sequence[Row]) -> None:
    high = found["from scratch, rate 0.1, a gentler penalty"]
    for axis, name in zip(axes, ("recovering", "removed"), strict=True):
        for course in high[name]:
            axis.plot(np.arange(len(course)) * high["every"], course)
        axis.set(xlabel="step of the stage", ylabel="penalty / ceiling", title=f"IncReg, from scratch: units {name}")


def _draw_l0_hqs(axes: Any, found: Found, _runs: Sequence[Row]) -> None:
    for axis, moment, title in zip(axes, (0, 1), ("before", "after"), strict=True):
        for values in found["groups"].values():
            ordered = np.array(values[moment])
            axis.semilogy(np.linspace(0, 1, len(ordered)), ordered / np.median(ordered), marker=".", alpha=0.7)
        axis.set(
            xlabel="units, sorted", ylabel="saliency / median", title=f"L0-HQS: saliencies {title}", ylim=(1e-6, 10)
        )


def _draw_orthoreg(axes: Any, found: Found, _runs: Sequence[Row]) -> None:
    for name in ("plain", "orthoreg"):
        steps, shares = np.array(found[name]["diagonal share"]).T
        axes[0].plot(steps, 1 - shares, label=name)
        axes[1].plot(*np.array(found[name]["pairs"]).T, ".", label=name)
    axes[0].set(xlabel="step of the stage", ylabel="off-diagonal share of |G|", title="OrthoReg: filters' correlation")
    axes[1].axline((0, 0), slope=1, color="grey", linewidth=0.8)
    axes[1].set(xlabel="sum of single losses", ylabel="loss together", title=f"{TOGETHER} filters of a layer")
    for axis in axes:
        axis.legend()


PICTURES = {
    "greg": _draw_greg,
    "orthoreg": _draw_orthoreg,
    "soft": _draw_soft,
    "l0_hqs": _draw_l0_hqs,
    "increg": _draw_increg,
}


# ---- the page --------------------------------------------------------------------------------------------------------


def page(known: Found, runs: Sequence[Row]) -> str:
    """What was claimed, what was measured, and whether it holds, as Markdown with the figures."""
    lines = ["# What papers say happens, and what happened", "", _how(known, runs), "", "| claim | measured | holds |"]
    lines += ["|---|---|---|", *(f"| {' | '.join(row)} |" for row in _claims(known, runs)), ""]
    return "\n".join([*lines, *(f"![{name}]({name}.svg)\n" for name in PICTURES)])


def _how(known: Found, runs: Sequence[Row]) -> str:
    images = sorted({found["images"] for found in known.values()})
    return (
        "`python -m autoprune.analysis.claims.mechanisms`: ResNet-20 on CIFAR-10 from pretrained weights, half of the\n"
        "FLOPs, uniform allocation, default hyper-parameters, "
        f"{', '.join(f'{n:,}' for n in images)} images under the pressure, one seed.\n"
        f"Accuracies are of the {len(runs)} runs in [methods_cifar10.md](methods_cifar10.md): equal budgets, the\n"
        f"stage included; of two numbers in the last column the first is for half of the FLOPs. {machine()}."
    )


def _claims(known: Found, runs: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
    """(claim, what was measured, whether it holds)."""
    for one, other, claim in PAIRS:
        for column in ("before", "after"):
            yield f"{claim}, {column} fine-tuning", *_compared(runs, one, other, column)
    yield from _orthoreg_claims(known["orthoreg"]["plain"], known["orthoreg"]["orthoreg"])
    gaps = known["l0_hqs"]["gap_before"], known["l0_hqs"]["gap_after"]
    measured = f"geometric mean over groups {_to(*gaps)}"
    yield "L0-HQS: the saliency gap widens at least ten times", measured, _holds(gaps[1] >= 10 * gaps[0])
    for start, found in known["increg"].items():
        if isinstance(found, dict):
            yield _increg_claim(start, found)


def _increg_claim(start: str, found: Found) -> tuple[str, str, str]:
    fell, of = found["of them under no penalty at the end"], found["pressed and alive"]
    measured = (
        f"of {of} units that stay though their penalty was above a hundredth of the ceiling, {fell} end without any; "
        f"{found['chosen as l1 would']:.1%} of the removed are those that `l1` removes at the start"
    )
    return f"IncReg, {start}: the penalty of a recovering unit falls again", measured, _holds(of > 0 and fell > of / 2)


#: One-shot removal that is fine-tuned as long as GReg is after its stage.
ONE_SHOT = "l1, 50,000 images"
PAIRS = (
    ("greg1", ONE_SHOT, "GReg-1: growing beats one-shot removal of the same filters, same fine-tuning"),
    ("greg1", "l1", "GReg-1 against one-shot removal of the same filters, same images in all"),
    ("greg2", "l1", "GReg-2 against one-shot removal by magnitude, same images in all"),
    ("srfp", "sfp", "softer beats soft: `srfp` against `sfp`"),
    ("asrfp", "asfp", "softer beats soft: `asrfp` against `asfp`"),
    ("asfp", "sfp", "asymptotic beats constant: `asfp` against `sfp`"),
    ("asrfp", "srfp", "asymptotic beats constant: `asrfp` against `srfp`"),
)


def _orthoreg_claims(plain: Found, regular: Found) -> Iterator[tuple[str, str, str]]:
    ends = [1 - found["diagonal share"][-1][1] for found in (plain, regular)]
    measured = f"off-diagonal share of the Gram matrices, without and with the penalty: {_to(*ends)}"
    yield "OrthoReg: correlation between filters falls", measured, _holds(ends[1] < ends[0])
    measured = (
        f"median distance of the loss of {TOGETHER} filters from the sum of single ones, relative, without and with: "
        f"{_to(plain['off by'], regular['off by'])}; correlation {_to(plain['correlation'], regular['correlation'])}"
    )
    better = regular["off by"] < 0.9 * plain["off by"]  # a tenth nearer at least
    yield "OrthoReg: importance of groups becomes additive", measured, _holds(better)


def _compared(runs: Sequence[Row], one: str, other: str, column: str) -> tuple[str, str]:
    """Differences in points over the seeds that both have, per target; whether all are clearly above zero."""
    said, verdicts = [], []
    for flops in sorted({row["flops"] for row in runs}, reverse=True):
        ours, theirs = (
            {row["seed"]: 100 * row[column] for row in runs if (label(row), row["flops"]) == (name, flops)}
            for name in (one, other)
        )
        differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        if differences:
            verdicts.append(verdict(differences))
            each = ", ".join(f"{difference:+.2f}" for difference in differences)
            said.append(f"{np.mean(differences):+.2f} points at {flops:.0%} ({each})")
    return "; ".join(said), verdicts[0] if len(set(verdicts)) == 1 else ", ".join(verdicts)


def verdict(differences: Sequence[float]) -> str:
    """`yes` or `no` if the mean is two standard errors from zero, else `unclear`; of one seed half a point counts."""
    mean = float(np.mean(differences))
    error = float(np.std(differences, ddof=1) / np.sqrt(len(differences))) if len(differences) > 1 else 0.25
    return "unclear" if abs(mean) < 2 * error else _holds(mean > 0)


def _to(before: float, after: float) -> str:
    return f"{before:.3g} -> {after:.3g}"


def _holds(holds: bool) -> str:
    return "yes" if holds else "no"


def main() -> None:
    """Measure, or draw what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=25_600)
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--runs", type=Path)
    args = parser.parse_args()
    if args.data is not None:
        measure(args.data, args.images, args.only)
    if args.draw:
        draw(json.loads(DATA.read_text()), [row for row in read_rows(args.runs) if row["split"] == "test"], HERE)


if __name__ == "__main__":
    main()
