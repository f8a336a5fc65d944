"""A search of ours beside loops of other tools, beside a chain of cuts without a search, and with parts left out.

    python -m autoprune.analysis.benchmarks.search_efficiency DATA --out RUNS.jsonl [--baselines FOLDER]
        [--network resnet20] [--minutes 10] [--seeds 0 1 2] [--sides ours iterative ...] [--cuts 7] [--factor 0.87]
        [--images 32000] [--python PYTHON] [--table FILE.md]

DATA is a folder with cifar10.npz and weights/NETWORK_cifar10.safetensors. FOLDER has `glue.py`, `expert.py` and
`iterative.py`, loops of Torch-Pruning with and without Optuna, which PYTHON runs; each takes `--arch`, `--weights`,
`--minutes`, `--seed` and `--out` and writes seconds, accuracy and cost ratio of every model. `--cuts` are those of a
chain of `iterative`, to be chosen so that one ends in the time given; `--factor` and `--images` are settings of the
plain chain (`plain_chain.py`).

Sides run as processes of their own on the same machine, one after the other, seed by seed. A run is a line of
RUNS.jsonl as soon as it has ended, and is not made again. Further sides of ours: variants by their settings, parts left
out (`SIDES` of `search_efficiency_runs.py`), one method of the space alone (`only l1`), another choice of parents and
targets (`curve policy`), and a search that is killed without warning at random moments and resumed (`killed`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.analysis.benchmarks import plain_chain
from autoprune.analysis.benchmarks.markdown import table_head, table_row, write_measured
from autoprune.analysis.benchmarks.search_efficiency_runs import (
    BASELINES,
    CURVE_POLICY,
    EXPERT,
    ITERATIVE,
    KILLED,
    ONLY,
    OPPONENTS,
    PLAIN_CHAIN,
    SIDES,
    Plan,
    Run,
    measure,
    methods_of,
    read_runs,
)
from autoprune.study.log import append_line
from autoprune.study.pareto import hypervolume, mean_height

OURS = "ours"
LIMITS = (0.5, 0.3)
#: How far below the least end of ours the second panel of a figure begins.
CLOSER = 0.04


# ---- the page --------------------------------------------------------------------------------------------------------


def page(runs: Sequence[Run]) -> str:
    """All runs as Markdown: per network what every side found, how soon, and ours beside every other side."""
    lines = ["# A search beside loops of other tools, and beside itself with parts left out", "", _page_head(runs)]
    for network in dict.fromkeys(run.network for run in runs):
        of_network = [run for run in runs if run.network == network]
        lines += ["", f"## {network}, {of_network[0].minutes:g} minutes a run", "", *_table_of_fronts(of_network)]
        lines += ["", *_table_of_times(of_network)]
        if any(run.side == OURS for run in of_network):
            lines += ["", *_table_of_differences(of_network)]
        lines += ["", f"![hypervolume over time, {network}](search_efficiency_{network}.svg)"]
    return "\n".join(lines)


def _page_head(runs: Sequence[Run]) -> str:
    loads = [run.load for run in runs]
    return (
        f"`python -m autoprune.analysis.benchmarks.search_efficiency`; {runs[0].machine};\n"
        f"{min(run.date for run in runs)} to {max(run.date for run in runs)} UTC; load before a run "
        f"{min(loads):.1f} to {max(loads):.1f}.\nAccuracy on the 5,000 images that models are selected by; "
        "hypervolume against FLOPs ratio 1 and accuracy 0; mean height: the\nbest accuracy at or below a cost, "
        "averaged over costs from 10 to 100 %. Mean and range over seeds. Models that came after the\nminutes "
        "do not count. Unseen: of the front's models, with those, on 5,000 "
        "other images;\nprograms of other tools keep no models, so that they have none. Reached: seconds until the\n"
        "hypervolume was what the opponent had at its end with the same seed, and as a share of its minutes. Busy: "
        "share of\nworkers' time inside trials, from the first start to the last end. Command: seconds from the "
        "start of the process to its end."
    )


def _table_of_fronts(runs: Sequence[Run]) -> list[str]:
    """What every side found."""
    limits = (f"at <= {limit:.0%} FLOPs" for limit in LIMITS)
    unseen = ("unseen hypervolume", "unseen height")
    heads = ["side", "seeds", "completed", "stopped", "hypervolume", "mean height", *limits, *unseen]
    return [*table_head(heads), *(_front_row(of_side) for of_side in _by_side(runs))]


def _front_row(runs: Sequence[Run]) -> str:
    unseen = [rows for run in runs if (rows := run.unseen_rows) is not None]
    cells = [
        _side_and_settings(runs[0]),
        ", ".join(str(run.seed) for run in runs),
        _mean_and_range([run.counts.get("completed", 0) for run in runs], "{:.0f}"),
        _mean_and_range([run.counts.get("stopped", 0) for run in runs], "{:.0f}"),
        _mean_and_range([run.volume for run in runs], "{:.4f}"),
        _mean_and_range([run.height for run in runs], "{:.4f}"),
        *(
            _mean_and_range([100 * best for run in runs if (best := run.best(limit))], "{:.2f} %") or "none"
            for limit in LIMITS
        ),
        _mean_and_range([hypervolume(rows) for rows in unseen], "{:.4f}"),
        _mean_and_range([mean_height(rows) for rows in unseen], "{:.4f}"),
    ]
    return table_row(cells)


def _side_and_settings(run: Run) -> str:
    return ", ".join([run.side, *(f"{name} {value:g}" for name, value in run.settings.items())])


def _table_of_times(runs: Sequence[Run]) -> list[str]:
    """How long every side took to reach what opponents had at their ends."""
    rivals = _rivals(runs)
    heads = [head for side in rivals for head in (f"reached {side}", f"of {side}'s time")]
    lines = table_head(["side", *heads, "busy", "command"])
    for of_side in _by_side(runs):
        times = [cell for side in rivals for cell in _reached(of_side, [run for run in runs if run.side == side])]
        busy = _mean_and_range([run.busy for run in of_side if run.busy is not None], "{:.1%}")
        wall = _mean_and_range([run.wall for run in of_side], "{:.0f} s")
        lines.append(table_row([_side_and_settings(of_side[0]), *times, busy, wall]))
    return lines


def _reached(runs: Sequence[Run], rivals: Sequence[Run]) -> tuple[str, str]:
    """Seconds until the hypervolume of a rival of the same seed was reached, and their share of the rival's minutes."""
    of_seed = {rival.seed: rival for rival in rivals}
    times = [
        (run.reaches(of_seed[run.seed].volume), 60 * of_seed[run.seed].minutes) for run in runs if run.seed in of_seed
    ]
    reached = [(seconds, seconds / given) for seconds, given in times if seconds is not None]
    missed = f"{len(times) - len(reached)} never" if len(times) > len(reached) else ""
    seconds = _mean_and_range([seconds for seconds, _ in reached], "{:.0f} s")
    return ", ".join(filter(None, (seconds, missed))), _mean_and_range([share for _, share in reached], "{:.0%}")


def _rivals(runs: Sequence[Run]) -> list[str]:
    """The opponents that times are compared with: the strongest by mean hypervolume, then `iterative` and `expert`."""
    there = {run.side for run in runs}
    return [side for side in dict.fromkeys([*_by_strength(runs, OPPONENTS)[:1], ITERATIVE, EXPERT]) if side in there]


def _by_strength(runs: Sequence[Run], sides: Iterable[str]) -> list[str]:
    """The sides that there are runs of, the highest mean hypervolume first."""
    volumes = {side: [run.volume for run in runs if run.side == side] for side in sides}
    there = {side: statistics.mean(found) for side, found in volumes.items() if found}
    return sorted(there, key=lambda side: -there[side])


def _table_of_differences(runs: Sequence[Run]) -> list[str]:
    """Ours minus every other side, seed by seed: opponents, then ours with parts left out, the strongest first."""
    variants = dict.fromkeys(run.side for run in runs if run.side not in (OURS, *OPPONENTS))
    heads = ["ours above", "seeds", "hypervolume", "on seeds", "mean height", "on seeds"]
    lines = table_head(heads)
    for side in (*_by_strength(runs, OPPONENTS), *_by_strength(runs, variants)):
        of_seed = {run.seed: run for run in runs if run.side == side}
        pairs = [(run, of_seed[run.seed]) for run in runs if run.side == OURS and run.seed in of_seed]
        if pairs:
            volumes = [ours.volume - theirs.volume for ours, theirs in pairs]
            heights = [ours.height - theirs.height for ours, theirs in pairs]
            lines.append(table_row([side, len(pairs), *_difference(volumes), *_difference(heights)]))
    return lines


def _difference(values: Sequence[float]) -> tuple[str, str]:
    return _mean_and_range(values, "{:+.4f}"), f"{sum(value > 0 for value in values)} of {len(values)}"


def _by_side(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of one side with the same settings together, in the order that they were made in."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(_side_and_settings(run), []).append(run)
    return list(found.values())


def _mean_and_range(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    mean = form.format(statistics.mean(values))
    return mean if len(values) == 1 else f"{mean} ({form.format(min(values))} to {form.format(max(values))})"


def draw(runs: Sequence[Run], folder: Path) -> None:
    """A figure per network: hypervolume over time, a line per run of ours, whole or changed, and of the opponents."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("svg")
    plt.rcParams.update({"svg.hashsalt": "autoprune", "svg.fonttype": "none", "figure.figsize": (11, 4.2)})
    drawn = [run for run in runs if run.side in (*SIDES, *OPPONENTS)]
    for network in dict.fromkeys(run.network for run in drawn):
        of_network = [run for run in drawn if run.network == network]
        figure, (whole, end) = plt.subplots(1, 2, layout="constrained")
        for axis in (whole, end):
            _draw_curves(axis, of_network)
        whole.set(ylabel="hypervolume", title=f"{network}, CIFAR-10")
        ours = [run.volume for run in of_network if run.side not in OPPONENTS]
        if ours:
            end.set(ylim=(min(ours) - CLOSER, max(ours) + CLOSER / 10), title="the same, closer")
        whole.legend()
        figure.savefig(folder / f"search_efficiency_{network}.svg", metadata={"Date": None})
        plt.close(figure)


def _draw_curves(axis: Any, runs: Sequence[Run]) -> None:
    for number, of_side in enumerate(_by_side(runs)):
        for turn, run in enumerate(of_side):
            seconds, volumes = np.array([(0.0, 0.0), *run.curve]).T
            style = {"color": f"C{number}", "linestyle": "--" if run.side in OPPONENTS else "-", "where": "post"}
            axis.step(seconds / 60, volumes, label=_side_and_settings(run) if turn == 0 else None, **style)
    axis.set(xlabel="minutes")


# ---- the command -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Run what is missing, and write page and figures."""
    options = _parse_arguments()
    os.environ["AUTOPRUNE_DATA"] = str(options.data)  # inherited by the searches that it starts
    for seed in options.seeds:
        for side in options.sides:
            plan = _plan_of(options, side, seed)
            known = read_runs(options.out) if options.out.exists() else []
            if any(plan.is_of(run) for run in known):
                continue
            run = measure(plan)
            append_line(options.out, json.dumps(asdict(run)))
            found = f"hypervolume {run.volume:.4f}, mean height {run.height:.4f}, {run.counts}, busy {run.busy}"
            print(f"{_side_and_settings(run)}, seed {seed}: {found}", flush=True)
    if options.table is not None:
        runs = read_runs(options.out)
        write_measured(options.table, page(runs))
        draw(runs, options.table.parent)


def _plan_of(options: argparse.Namespace, side: str, seed: int) -> Plan:
    return Plan(
        side=side,
        network=options.network,
        minutes=options.minutes,
        seed=seed,
        data=options.data,
        baselines=options.baselines,
        python=options.python,
        cuts=options.cuts,
        chain={"factor": options.factor, "images": options.images},
    )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--baselines", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--cuts", type=int, default=7)
    parser.add_argument("--factor", type=float, default=plain_chain.FACTOR)
    parser.add_argument("--images", type=int, default=plain_chain.IMAGES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", default="resnet20", choices=plain_chain.NETWORKS)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sides", nargs="+", default=[OURS, PLAIN_CHAIN])
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    sides = (*SIDES, *OPPONENTS, CURVE_POLICY, KILLED, *(f"{ONLY}{method}" for method in methods_of(options.network)))
    if unknown := [side for side in options.sides if side not in sides]:
        parser.error(f"--sides {unknown[0]!r}: allowed are {', '.join(sides)}")
    if options.baselines is None and (missing := [side for side in options.sides if side in BASELINES]):
        parser.error(f"{missing[0]!r} needs --baselines FOLDER with {BASELINES[missing[0]][0]}")
    return options


if __name__ == "__main__":
    main()
