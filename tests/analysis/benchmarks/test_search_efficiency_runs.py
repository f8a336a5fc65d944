"""The sides of the benchmark of whole searches: their commands, what is read of them; a run's arithmetic by hand."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from autoprune import methods
from autoprune.analysis.benchmarks import search_efficiency_runs
from autoprune.analysis.benchmarks.search_efficiency_runs import (
    EXPERT,
    GLUE,
    ITERATIVE,
    ON_GPU,
    PLAIN_CHAIN,
    Plan,
    describe,
    measure,
    measure_unseen,
    opponent_command,
    read_opponent,
    read_runs,
    settings_of,
)
from autoprune.engine.keep import Keep
from autoprune.engine.surgery import artifact
from autoprune.engine.tracing.trace import trace
from autoprune.errors import InputError
from autoprune.study.log import append_line
from autoprune.study.space_file import load_space
from autoprune.tasks import load_task
from autoprune.training.evaluate import evaluate
from autoprune.training.runtime import Runtime
from tests.helpers.commands import DIGITS_DATA, UNTRAINED
from tests.helpers.efficiency_runs import made


def plan_of(side: str, **changes: Any) -> Plan:
    plain = {"network": "resnet20", "minutes": 7.0, "seed": 3, "data": Path("data"), "baselines": Path("rivals")}
    return Plan(side=side, **{**plain, **changes})


def test_volumes_heights_times_and_bests_by_hand() -> None:
    run = made("ours", (11.0, 0.5, 0.8), (23.0, 0.25, 0.4), (37.0, 0.5, 0.7))

    assert [volume for _, volume in run.curve] == pytest.approx([0.4, 0.5, 0.5])
    assert (run.volume, run.best(0.5), run.best(0.3), run.best(0.2)) == (pytest.approx(0.5), 0.8, 0.4, 0.0)
    assert run.height == pytest.approx((0.25 * 0.4 + 0.5 * 0.8) / 0.9)
    assert (run.reaches(0.4), run.reaches(0.45), run.reaches(0.6)) == (11.0, 23.0, None)
    assert (made("ours").volume, made("ours").height) == (0.0, 0.0)


def test_what_ends_after_the_minutes_does_not_count() -> None:
    run = made("ours", (11.0, 0.5, 0.8), (420.0, 0.25, 0.4), (420.1, 0.25, 0.7), minutes=7.0)

    assert [second for second, _ in run.curve] == [11.0, 420.0]
    assert (run.volume, run.best(0.3)) == (pytest.approx(0.5), 0.4)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    runs = [
        made("ours", (11.0, 0.5, 0.8), unseen=((0.25, 0.4), (0.5, 0.75))),
        made(ITERATIVE, (11.0, 0.5, 0.8), settings={"cuts": 7}),
        made(PLAIN_CHAIN, unseen=()),
    ]
    for run in runs:
        append_line(tmp_path / "runs.jsonl", json.dumps(asdict(run)))

    assert read_runs(tmp_path / "runs.jsonl") == runs


def test_a_run_from_before_settings_and_unseen_images_is_read(tmp_path: Path) -> None:
    plain = asdict(made("ours", (11.0, 0.5, 0.8)))
    del plain["settings"], plain["unseen"]
    append_line(tmp_path / "runs.jsonl", json.dumps(plain))

    assert read_runs(tmp_path / "runs.jsonl") == [made("ours", (11.0, 0.5, 0.8))]


def test_a_plan_is_of_a_run_of_the_same_settings_if_they_concern_its_side() -> None:
    run = made(ITERATIVE, seed=3, minutes=7.0, settings={"cuts": 5})

    assert plan_of(ITERATIVE, cuts=5).is_of(run)
    assert not plan_of(ITERATIVE, cuts=7).is_of(run)
    assert not plan_of(ITERATIVE, cuts=5, seed=4).is_of(run)
    assert not plan_of(ITERATIVE, cuts=5, device="cuda").is_of(run)
    assert plan_of("ours", cuts=5).is_of(made("ours", seed=3, minutes=7.0))
    assert not plan_of(PLAIN_CHAIN, chain={"factor": 0.9}).is_of(made(PLAIN_CHAIN, seed=3, minutes=7.0))


class TestOurs:
    def test_a_study_becomes_points_in_the_order_they_ended(self, make_study: Any, build: Any) -> None:
        study = make_study([build.completed(2, 0.5, 0.75), build.completed(1, 0.25, 0.5), build.stopped(7, 0.5, 0.61)])
        found = describe(study)

        assert [flops for _, flops, _ in found["points"]] == [0.25, 0.5]
        assert found["counts"] == {"completed": 2, "stopped": 1, "failed": 0}
        assert found["busy"] is not None

    def test_the_models_of_the_front_are_measured_on_the_test_split(self, make_study: Any, build: Any) -> None:
        spec = {"data": DIGITS_DATA, "model": UNTRAINED}
        outcomes = [build.completed(2, 0.5, 0.75), build.completed(1, 0.25, 0.5), build.completed(5, 0.6, 0.7)]
        study, task = make_study(outcomes, task=spec), load_task(spec)
        models = {number: task.build(seed=number) for number in (1, 2)}  # 5 is beaten by 2 and was not kept
        for number, model in models.items():
            graph = trace(model, task.example())
            artifact.save(study.folder.models / str(number), model, graph, Keep.all())
        expected = {n: evaluate(model, task.test, task, Runtime(channels_last=True)) for n, model in models.items()}

        assert measure_unseen(study) == ((0.25, expected[1]), (0.5, expected[2]))

    def test_a_side_with_one_method_has_it_as_the_space_has_it(self) -> None:
        words = settings_of("only fuzzy", "resnet20")
        alone, whole = (
            load_space("cifar10_resnet20", overrides=these, find_method=methods.find).to_plain()["space"]
            for these in (words, ())
        )

        assert alone["method"]["choice"] == {"fuzzy": alone["method"]["choice"]["fuzzy"]}
        assert alone["method"]["choice"]["fuzzy"]["rounds"] == whole["method"]["choice"]["fuzzy"]["rounds"]
        assert {**alone, "method": None} == {**whole, "method": None}
        assert settings_of("killed", "resnet20") == ()

    @pytest.mark.parametrize("side", list(search_efficiency_runs.SIDES))
    def test_the_settings_of_every_side_fit_the_ready_spaces(self, side: str) -> None:
        whole = load_space("cifar10_resnet20", find_method=methods.find)
        changed = load_space("cifar10_resnet20", overrides=settings_of(side, "resnet20"), find_method=methods.find)

        assert (changed == whole) == (side == "ours")

    def test_a_killed_search_is_resumed_until_it_ends(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lives, commands = [], []
        kill = "_kill_after"
        monkeypatch.setattr(search_efficiency_runs, kill, lambda life, command: lives.append((life, command[3])))
        monkeypatch.setattr(search_efficiency_runs, "_run_command", lambda command: commands.append(command[3]))
        monkeypatch.setattr(search_efficiency_runs, "load_study", lambda _: None)
        monkeypatch.setattr(search_efficiency_runs, "describe", lambda _: {"busy": 0.5})
        monkeypatch.setattr(search_efficiency_runs, "measure_unseen", lambda _: ((0.5, 0.7),))
        found = search_efficiency_runs.run_ours(plan_of("killed", data=tmp_path))

        assert found == {"busy": None, "unseen": ((0.5, 0.7),), "wall": found["wall"]}
        assert [command for _, command in lives] == ["search", "resume", "resume"]
        assert all(search_efficiency_runs.SHORTEST <= life <= search_efficiency_runs.LONGEST for life, _ in lives)
        assert commands == ["resume"]


class TestOpponents:
    @pytest.mark.parametrize(
        ("side", "file", "options"),
        [
            (GLUE, "glue.py", ["--fast"]),
            (EXPERT, "expert.py", ["--workers", "2"]),
            (ITERATIVE, "iterative.py", ["--workers", "2", "--cuts", "5"]),
        ],
    )
    def test_a_file_of_other_tools_is_run_by_its_python(self, side: str, file: str, options: list[str]) -> None:
        weights = "data/weights/resnet20_cifar10.safetensors"
        common = ["--arch", "resnet20", "--weights", weights, "--minutes", "7.0", "--seed", "3"]

        command = opponent_command(plan_of(side, python="another-python", cuts=5))
        assert command == ["another-python", f"rivals/{file}", *common, *options]

    def test_on_a_gpu_there_are_ours_and_the_iterative_loop(self) -> None:
        command = opponent_command(plan_of(ITERATIVE, device="cuda"))

        assert command[-6:] == ["--workers", "8", "--device", "cuda", "--cuts", "7"]
        with pytest.raises(InputError, match="device: 'plain chain' runs on the CPU; allowed: cuda for ours"):
            opponent_command(plan_of(PLAIN_CHAIN, device="cuda"))
        on_gpu = load_space("cifar10_resnet20", overrides=ON_GPU, find_method=methods.find).resources
        assert (on_gpu.gpus_per_trial, on_gpu.workers) == ("auto", None)

    def test_the_plain_chain_gets_its_settings(self) -> None:
        command = opponent_command(plan_of(PLAIN_CHAIN, chain={"factor": 0.8, "images": 1700}, baselines=None))

        assert command[1:4] == ["-m", "autoprune.analysis.benchmarks.plain_chain", "data"]
        assert command[4:8] == ["--network", "resnet20", "--minutes", "7.0"]
        assert command[-4:] == ["--factor", "0.8", "--images", "1700"]

    def test_without_the_folder_it_is_asked_for(self) -> None:
        with pytest.raises(InputError, match="--baselines: 'expert' is a file of other tools"):
            opponent_command(plan_of(EXPERT, baselines=None))

    def test_rows_without_unseen_images_have_none(self, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").write_text("seconds,accuracy,macs_ratio\n23.5,0.7,0.5\n11.0,0.8,0.625\n")
        points = ((11.0, 0.625, 0.8), (23.5, 0.5, 0.7))

        found = read_opponent(tmp_path / "rows.csv")
        assert found == {"points": points, "counts": {"completed": 2}, "unseen": None}

    def test_of_unseen_images_the_rows_that_were_measured_count(self, tmp_path: Path) -> None:
        rows = "seconds,accuracy,macs_ratio,unseen\n11.0,0.8,0.625,0.75\n23.5,0.7,0.7,\n"
        (tmp_path / "rows.csv").write_text(rows)

        assert read_opponent(tmp_path / "rows.csv")["unseen"] == ((0.625, 0.75),)

    def test_a_run_holds_what_the_command_wrote(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def writes(command: list[str]) -> None:
            Path(command[-1]).write_text("seconds,accuracy,macs_ratio\n11.0,0.8,0.5\n")

        monkeypatch.setattr(search_efficiency_runs, "_run_command", writes)
        run = measure(plan_of(ITERATIVE, cuts=5))

        assert (run.points, run.settings, run.unseen, run.busy) == (((11.0, 0.5, 0.8),), {"cuts": 5}, None, None)
        assert plan_of(ITERATIVE, cuts=5).is_of(run)
        assert not plan_of(ITERATIVE, cuts=5).is_of(replace(run, network="resnet56"))


def test_a_process_is_killed_and_one_that_ended_before_is_said(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    search_efficiency_runs._kill_after(0.5, ["sh", "-c", f"sleep 1.5; touch {mark}"])
    time.sleep(1.5)
    assert not mark.exists()
    with pytest.raises(SystemExit, match="ended with 3"):
        search_efficiency_runs._kill_after(5.0, ["sh", "-c", "exit 3"])


def test_a_command_that_fails_is_said_with_its_last_words() -> None:
    with pytest.raises(SystemExit, match="failed with 3:\nlast words"):
        search_efficiency_runs._run_command(["sh", "-c", "echo last words >&2; exit 3"])
