"""A study of a metric to minimise as its folder holds it: lines written by hand, in cm, the dense model at 1.4.

Heights are 1.4 / (1.4 + rmse). The front is 3, 7, 11; 5 is beaten by 7; 13 was stopped; 17 diverged; 0 is the control.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from autoprune.study.folder import StudyFolder

METRIC = {"name": "rmse", "direction": "minimize", "best": 0.0, "worst": None, "unit": "cm", "scale": 1.4}
SPLITS = {"train": "train", "validation": "validation", "test": "test"}
CONFIG: dict[str, Any] = {
    "task": {"kind": "heights", "data": {"name": "trees", "splits": SPLITS}, "model": {"factory": "trees:build"}},
    "space": {"method": "l1", "target": {"flops": {"float": [0.1, 0.9]}}},
    "metric": METRIC,
    "objectives": ["rmse", "flops"],
    "dense": {"rmse": 1.4, "flops": 1_000_003, "params": 1009, "activations": 10_007},
    "groups": [{"id": "stem", "size": 17, "stage": 0, "frozen": None}],
    "versions": {"torch": "2.15.0"},
}


def line(number: int, rmse: float | None, flops: float, method: str = "l1", **more: Any) -> str:
    """One line of `outcomes.jsonl`, as a search writes it; with rungs at 1.7 times the end and at the end."""
    images = 700
    rungs = [] if rmse is None else [(0.0, 0, 1.7 * rmse, 1.0), (1.0, images, rmse, 5.0)]
    plain = {
        "id": number,
        "recipe": {"method": {"name": method}, "target": {"flops": flops}, "training": {"images": images}, "seed": 13},
        "status": "failed" if rmse is None else "completed",
        "rmse": rmse,
        "flops_ratio": flops,
        "params_ratio": flops,
        "activations_ratio": flops,
        "rungs": [{"share": s, "images": n, "rmse": r, "seconds": t} for s, n, r, t in rungs],
        "widths": {"stem": 11},
        "started": 7.0 * number,
        "finished": 7.0 * number + 5.0,
        "seed": 13,
        "worker": "here",
        **more,
    }
    return json.dumps(plain)


STOPPED = {"status": "stopped", "rungs": [{"share": 0.3, "images": 210, "rmse": 5.5, "seconds": 2.0}]}
LINES = (
    line(0, 1.3, 1.0, "dense", control=True),
    line(3, 4.2, 0.2),
    line(5, 2.9, 0.5),
    line(7, 2.1, 0.4, "taylor"),
    line(11, 1.4, 0.7),
    line(13, None, 0.3, **STOPPED),
    line(17, None, 0.6, error="the rmse is nan on the validation split after 700 images"),
)


def finalist(number: int, member: int, seed: int, rmse: float, tested: float, method: str = "taylor") -> str:
    """One line of `finalists.jsonl`: a member trained again."""
    plain = json.loads(line(number, rmse, 1.0 if method == "dense" else 0.4, method))
    return json.dumps({**plain, "member": member, "test_rmse": tested, "recipe": {**plain["recipe"], "seed": seed}})


FINALISTS = (
    finalist(0, 0, 13, 1.1, 1.2, "dense"),
    finalist(1, 7, 13, 1.9, 2.3),
    finalist(2, 0, 14, 1.3, 1.6, "dense"),
    finalist(3, 7, 14, 1.7, 2.7),
)


def write(path: Path, *, finalists: bool = False, **config: Any) -> StudyFolder:
    """The folder of that study; `config` replaces top keys of its `study.yaml`."""
    folder = StudyFolder(path)
    path.mkdir()
    folder.config.write_text(yaml.safe_dump({**CONFIG, **config}, sort_keys=False))
    folder.outcomes.write_text("".join(f"{line}\n" for line in LINES))
    if finalists:
        folder.finalists.write_text("".join(f"{line}\n" for line in FINALISTS))
    return folder
