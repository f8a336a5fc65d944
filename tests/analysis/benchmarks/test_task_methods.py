"""The comparison of methods on a task: rows are kept, what is there is not run again, and the table is theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
from scene_folders import write_voc_boxes

from autoprune.analysis.benchmarks import task_methods
from autoprune.analysis.benchmarks.task_methods import Settings, main, missing, page, read_rows
from autoprune.errors import InputError

LR = "space.training.lr=0.02"
SETTINGS = Settings.of("bccd_retinanet", [LR], 0.5)

#: The task of `bccd_retinanet`, small enough for a test.
TINY = [
    LR,
    "space.training.images=2",
    "task.model.arguments.widths=[7, 11]",
    "task.model.arguments.pyramid=13",
    "task.model.arguments.depth=1",
    "task.model.arguments.anchors=[4, 8]",
    "task.model.train.images=2",
]


def row(method: str, seed: int, test: float, settings: Settings = SETTINGS) -> dict[str, object]:
    named = {
        "settings": settings.key(),
        "space": settings.name,
        "method": method,
        "seed": seed,
        "metric": "mAP",
        "unit": "%",
    }
    numbers = {"flops_ratio": 0.5, "after_cut": 0.1, "validation": 0.3, "test": test, "seconds": 7.0, "images": 2050}
    return {**named, "machine": "a machine", **numbers}


def test_what_stands_in_the_rows_is_not_missing() -> None:
    other = Settings.of("bccd_retinanet", [LR], 0.25)
    rows = [row("l1", 0, 0.3), row("taylor", 1, 0.3), row("taylor", 0, 0.3, other)]

    assert missing(rows, SETTINGS, ["l1", "taylor"], [0, 1]) == [("taylor", 0), ("l1", 1)]


def test_where_the_data_lie_decides_nothing_and_what_trials_do_decides() -> None:
    moved = Settings.of("bccd_retinanet", [LR, "task.data.path=/elsewhere", "task.data.workers=7"], 0.5)
    slower = Settings.of("bccd_retinanet", ["space.training.lr=0.01"], 0.5)

    assert SETTINGS.key() == moved.key()
    assert SETTINGS.key() != slower.key()


def test_a_space_that_leaves_open_how_trials_train_is_refused() -> None:
    with pytest.raises(InputError, match=r"several values of lr; allowed: --set space\.training\.lr=VALUE"):
        Settings.of("bccd_retinanet", [], 0.5)


def test_a_space_that_does_not_measure_right_after_the_cut_is_refused() -> None:
    with pytest.raises(InputError, match=r"nothing is measured right after the cut; allowed: \[0, \.\.\.\]"):
        Settings.of("bccd_retinanet", [LR, "space.training.rungs=[0.5, 1]"], 0.5)


def test_a_metric_that_is_no_share_is_shown_as_it_is() -> None:
    text = page([{**row("l1", 0, 21.5), "metric": "psnr", "unit": "dB"}])

    assert "psnr in dB; every trial" in text
    assert "| l1 | 1 | 50.0% | 0.1000 | 0.3000 | 21.5000 | 7 |" in text


def test_every_settings_has_a_table_with_means_over_seeds() -> None:
    masks = Settings.of("digit_scenes_unet", [LR, "space.training.distill=0"], 0.5)
    text = page(
        [row("l1", 0, 0.20), row("l1", 1, 0.24), row("taylor", 0, 0.5), {**row("l1", 0, 0.9, masks), "metric": "mIoU"}]
    )

    assert "## bccd_retinanet\n\nmAP in %; every trial trained on 2,050 images; a machine." in text
    assert "| l1 | 2 | 50.0% | 10.00 ± 0.00 | 30.00 ± 0.00 | 22.00 ± 2.83 | 7 ± 0 |" in text
    assert "| taylor | 1 | 50.0% | 10.00 | 30.00 | 50.00 | 7 |" in text
    assert "## digit_scenes_unet\n\nmIoU in %" in text
    assert "| l1 | 1 | 50.0% | 10.00 | 30.00 | 90.00 | 7 |" in text


@pytest.mark.long
def test_two_images_are_enough_to_run_and_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = {name: ["cat 1 1 9 6", "dog 2 3 2 3"] for name in "abcd"}
    write_voc_boxes(tmp_path / "data", {"train": ["a", "b"], "val": ["c"], "test": ["d"]}, objects)
    overrides = [*TINY, f"task.data.path={tmp_path / 'data'}"]
    argv = ["bccd_retinanet", "--rows", str(tmp_path / "rows.jsonl"), "--table", str(tmp_path / "table.md")]
    argv += ["--flops", "0.7", "--seeds", "3", "--methods", "l1", *(part for o in overrides for part in ("--set", o))]

    main(argv)
    monkeypatch.setattr(task_methods, "load_task", lambda _: pytest.fail("there is nothing left to run"))
    main(argv)

    (only,) = read_rows(tmp_path / "rows.jsonl")
    assert (only["method"], only["seed"]) == ("l1", 3)
    assert 0.55 < only["flops_ratio"] <= 0.71
    assert 0 <= only["test"] <= 1
    assert "| l1 | 1 |" in (tmp_path / "table.md").read_text()
