"""What papers say happens inside a network while it is pruned, looked at in real runs of ResNet-20 on CIFAR-10.

    python -m autoprune.analysis.claims.mechanisms DATA [--images 25600] [--only NAME ...]    measure -> mechanisms.json
    python -m autoprune.analysis.claims.mechanisms --draw --runs RUNS.jsonl                   figures, mechanisms.md

DATA as for `methods_cifar10`; RUNS are its rows. Measuring begins with the pretrained network and goes to half of the
FLOPs unless a claim is about more targets; where a method trains before it cuts, copies train under its regulariser, at
its default hyper-parameters, and are looked into. `latency` times the widths that `group_fisher` has found. Growing
against one-shot removal and softer against soft are read from RUNS.

Drawing needs matplotlib (the `dev` extra).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from autoprune.analysis.benchmarks.markdown import describe_machine, table_head, table_row
from autoprune.analysis.claims import mechanisms_rebuilt as rebuilt
from autoprune.analysis.claims import mechanisms_regularised as regularised
from autoprune.analysis.claims import mechanisms_runs as from_runs
from autoprune.analysis.claims import mechanisms_selecting as selecting
from autoprune.analysis.claims import mechanisms_speed as speed
from autoprune.analysis.claims.mechanisms_common import Claim, Found
from autoprune.analysis.claims.methods_cifar10 import Row, read_rows, shared_state_of
from autoprune.trial.shared import SharedState

HERE = Path(__file__).parent
DATA = HERE / "mechanisms.json"
PARTS = (regularised, rebuilt, selecting, speed)
MEASURED: dict[str, Callable[[SharedState, int], Found]] = {
    **regularised.MEASURED,
    **rebuilt.MEASURED,
    **selecting.MEASURED,
    **speed.MEASURED,
    "latency": lambda shared, _images: speed.latency(shared, json.loads(DATA.read_text())["group_fisher"]),
}
CLAIMS: dict[str, Callable[[Found], Iterator[Claim]]] = {
    name: claims for part in PARTS for name, claims in part.CLAIMS.items()
}
PICTURES: dict[str, Callable[[Any, Found, Sequence[Row]], None]] = {
    "soft": from_runs.draw_soft,
    **{name: picture for part in PARTS for name, picture in part.PICTURES.items()},
}


def measure(data: Path, images: int, only: Sequence[str]) -> None:
    """Measure the chosen mechanisms and write them beside those measured before."""
    shared = shared_state_of(data, "validation")
    for name in only:
        found = {"images": images, "machine": describe_machine(), **MEASURED[name](shared, images)}
        known = json.loads(DATA.read_text()) if DATA.exists() else {}
        DATA.write_text(json.dumps({**known, name: found}, indent=None) + "\n")
        print(name, {key: value for key, value in found.items() if isinstance(value, (int, float, str, bool))})


def draw(known: Found, runs: Sequence[Row], folder: Path) -> None:
    """One SVG per mechanism that was measured, and `mechanisms.md` with what holds."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("svg")
    plt.rcParams.update({"svg.hashsalt": "autoprune", "svg.fonttype": "none", "figure.figsize": (9, 3.4)})
    for name in _drawn_names(known):
        figure, axes = plt.subplots(1, 2, layout="constrained")
        PICTURES[name](axes, known.get(name, {}), runs)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
    (folder / "mechanisms.md").write_text(page(known, runs))


def _drawn_names(known: Found) -> list[str]:
    """Names of the measured mechanisms, and `soft`, which has only runs."""
    return [name for name in PICTURES if name in known or name == "soft"]


def page(known: Found, runs: Sequence[Row]) -> str:
    """Claims, measurements and verdicts as Markdown with the figures."""
    claims = [*from_runs.claims(runs), *(row for name in CLAIMS if name in known for row in CLAIMS[name](known[name]))]
    lines = ["# What papers say happens, and what happened", "", _page_head(known, runs), ""]
    lines += [*table_head(["claim", "measured", "holds"], text=range(3)), *map(table_row, claims), ""]
    return "\n".join([*lines, *(f"![{name}]({name}.svg)\n" for name in _drawn_names(known))])


def _page_head(known: Found, runs: Sequence[Row]) -> str:
    images = sorted({found["images"] for found in known.values()})
    machines = sorted({found["machine"] for found in known.values()})
    return (
        "`python -m autoprune.analysis.claims.mechanisms`: ResNet-20 on CIFAR-10 from pretrained weights, half of the\n"
        "FLOPs, uniform allocation and default hyper-parameters unless a row says otherwise, "
        f"{', '.join(f'{n:,}' for n in images)} images\nunder the regulariser of methods that have one, one seed.\n"
        "Accuracies before and after fine-tuning, against one-shot removal and of the soft methods, are of the "
        f"{len(runs)}\nruns in [methods_cifar10.md](methods_cifar10.md): equal budgets, the stage included; of two\n"
        "numbers in the last column the first is for half of the FLOPs. Other accuracies are of the first 5,000 test\n"
        f"images. {'; '.join(machines)}."
    )


def main() -> None:
    """Measure, or draw earlier measurements."""
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
