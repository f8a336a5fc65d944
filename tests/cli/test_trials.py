"""prune and replay: one recipe, with data and without."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import Capture, fails, works, write_space, write_study
from disks import full_disk

from autoprune.cli import parser
from autoprune.study.folder import load_study
from autoprune.study.log import append_line
from autoprune.timing.pairs import Timer, Timing


def test_an_unreachable_target_of_one_recipe(capsys: Capture, here: Path) -> None:
    line = fails(
        capsys, "prune", "lenet5", "--input", "1x28x28", "--method", "l1", "--flops", "0.0001", "--to", "small"
    )

    assert "cannot be reached" in line
    assert list(here.iterdir()) == []


def test_prune_without_data(capsys: Capture, here: Path) -> None:
    options = ["--input", "1x28x28", "--flops", "0.5"]
    facts = json.loads(works(capsys, "prune", "lenet5", *options, "--method", "fpgm", "--to", "small", "--json"))

    assert facts["flops_ratio"] == pytest.approx(0.5, abs=0.01)
    assert sorted(path.name for path in (here / "small").iterdir()) == ["model.json", "model.safetensors"]
    assert "this method looks at data" in fails(capsys, "prune", "lenet5", *options, "--method", "taylor")
    eights = json.loads(works(capsys, "prune", "lenet5", *options, "--method", "l1", "--round-to", "8", "--json"))
    assert all(width % 8 == 0 or width in (20, 50, 500) for width in eights["widths"].values())
    assert "round_to: 600 is out of range; allowed: [1, 512]" in fails(
        capsys, "prune", "lenet5", *options, "--method", "l1", "--round-to", "600"
    )
    assert "unknown method" in fails(capsys, "prune", "lenet5", *options, "--method", "nope")
    for model in (["lenet5"], ["--task", "digits_demo"]):
        line = fails(capsys, "prune", *model, "--method", "l1")
        assert line.startswith("prune: target: l1 has no target, so that nothing would be pruned; allowed: flops or")
    assert "either MODEL or --task" in fails(capsys, "prune", "--method", "l1")
    assert "already exists" in fails(capsys, "prune", "lenet5", *options, "--method", "l1", "--to", "small")
    assert "allocaton" in fails(
        capsys, "prune", "lenet5", *options, "--method", "l1", "--set", "allocaton.name=uniform"
    )


def test_prune_says_what_time_the_model_takes_and_warns_where_it_takes_as_long(
    capsys: Capture, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--input", "1x28x28", "--flops", "0.5", "--method", "l1")
    for high, warns in ((0.99, False), (1.01, True)):
        timing = Timing(ms=2.5, ratio=0.96875, low=0.9, high=high)
        monkeypatch.setattr(Timer, "time", lambda *_, found=timing: found)
        facts = json.loads(works(capsys, "prune", "lenet5", *options, "--json"))

        assert (facts["latency_ratio"], facts["latency_ms"]) == (0.96875, 2.5)
        assert any("FLOPs fell and time may not have: 0.97 of" in text for text in facts["remarks"]) == warns
        assert "the weights are those that lenet5 begins with, untrained" in facts["remarks"]


def test_prune_names_groups_that_fast_widths_are_too_coarse_for(
    capsys: Capture, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ("prune", "lenet5", "--input", "1x28x28", "--flops", "0.5", "--method", "l1", "--json")
    told = []
    for slow in ([], ["conv1", "conv2", "fc1", "fc2"]):
        monkeypatch.setattr("autoprune.engine.allocation.widths.slow_groups", lambda *_, names=slow: names)
        told.append([text for text in json.loads(works(capsys, *argv))["remarks"] if "fast widths" in text])

    assert told == [
        [],
        ["no fast widths come within 1 % of the target: those of conv1, conv2, fc1, ... are finer"],
    ]


def test_prune_with_a_space_trains_as_the_space_says(capsys: Capture, here: Path) -> None:
    training = {"images": 96, "batch_size": 16, "lr": {"float": [0.01, 0.04], "log": True}}
    search = {"method": "l1", "target": {"flops": 0.9}, "training": training}
    argv = ["prune", "--task", write_space(here / "s.yaml", space=search), "--method", "l1", "--flops", "0.5"]
    facts = json.loads(works(capsys, *argv, "--json"))
    said = json.loads(works(capsys, *argv, "--json", "--set", "training.images=32", "--set", "training.lr=0.5"))
    words = works(capsys, *argv)

    assert (facts["training"]["images"], facts["training"]["batch_size"]) == (96, 16)
    assert facts["training"]["lr"] == pytest.approx(0.02)  # the middle on a log scale
    assert facts["flops_ratio"] == pytest.approx(0.5, abs=0.01)
    assert 0 <= facts["dense_accuracy"] <= 1
    assert (said["training"]["images"], said["training"]["lr"], said["training"]["batch_size"]) == (32, 0.5, 16)
    assert "dense_accuracy" in words
    assert re.search(r"images +96 ", words)


def test_a_full_disk_leaves_nothing_of_a_pruned_model(capsys: Capture, here: Path) -> None:
    argv = ["prune", "lenet5", "--input", "1x28x28", "--method", "l1", "--flops", "0.5", "--to", "small"]
    with full_disk(50_000):
        line = fails(capsys, *argv)

    assert line == "small: cannot write: File too large; allowed: a disk with room"
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_prune_with_data(capsys: Capture, here: Path) -> None:
    space = write_space(here / "s.yaml")
    argv = ["prune", "--task", space, "--method", "taylor", "--flops", "0.5", "--set", "training.images=640", "--json"]
    facts = json.loads(works(capsys, *argv, "--to", "small"))

    assert facts["flops_ratio"] == pytest.approx(0.5, abs=0.01)
    assert 0 < facts["accuracy"] <= 1
    assert (here / "small/model.safetensors").is_file()


@pytest.mark.slow
def test_a_trial_can_be_replayed(searched: Path, capsys: Capture) -> None:
    trial = load_study(searched).outcomes[-1].id

    facts = json.loads(works(capsys, "replay", str(searched), "--trial", str(trial), "--json"))

    assert facts["same"]
    assert {row["what"] for row in facts["compared"]} >= {"accuracy", "flops_ratio", "widths"}
    assert set(facts["notes"]) == {"recorded", "again"}


@pytest.mark.slow
def test_a_replay_that_differs_is_said_to(searched: Path, capsys: Capture, here: Path) -> None:
    study = load_study(searched)
    write_study(here / "other")
    (here / "other/study.yaml").write_text(study.folder.config.read_text())
    last = json.loads(study.outcomes[-1].to_json())
    append_line(here / "other/outcomes.jsonl", json.dumps({**last, "flops_ratio": last["flops_ratio"] + 0.1}))

    capsys.readouterr()
    assert parser.main(["replay", "other", "--trial", str(last["id"])]) == 1
    assert "gave another flops_ratio" in capsys.readouterr().err
