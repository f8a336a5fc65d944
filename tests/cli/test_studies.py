"""search, resume, finish, status, report: what is refused before anything is written, and what is printed."""

from __future__ import annotations

import json
import re
import shutil
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from commands import (
    DIGITS_DATA,
    OUTCOMES,
    UNTRAINED,
    Capture,
    fails,
    works,
    write_finished,
    write_space,
    write_study,
)
from safetensors.torch import save_file

from autoprune.search.study_lock import lock
from autoprune.study.folder import StudyFolder, load_study
from autoprune.study.log import append_line
from autoprune.tasks import load_task


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("space.method=nope", "unknown method 'nope'"),
        ("space.method.choice.taylor.imges=1", "imges"),
        ("space.trainig.images=3", "trainig"),
        ("space.target.flops=1.5", "1.5 is out of range"),
        ("space.training.lr=-1", "-1"),
        ("budget.trails=3", "trails"),
        ("objectives=[speed]", "speed"),
        ("objectives=[flops, latency]", "found ['flops', 'latency']; allowed: accuracy, and one or two of"),
        ("objectives=[accuracy]", "found ['accuracy']; allowed: accuracy, and one or two of flops, params"),
        ("objectives=[accuracy, flops, flops]", "allowed: accuracy, and one or two of"),
        ("objectives=[accuracy, flops, params, latency]", "allowed: accuracy, and one or two of"),
        ("constraints={speed: 5}", "speed"),
        ("constraints={params: 1.5}", "constraints.params: 1.5 is out of range; allowed: (0, 1]"),
        ("constraints={latency_ms: 0}", "constraints.latency_ms: 0.0 is out of range; allowed: (0, 1e+06]"),
        ("latency={batch: 0}", "latency.batch: 0 is out of range"),
        ("latency={runtime: graph}", "latency.runtime: graph needs a GPU, and this is cpu; allowed: eager"),
        (
            "latency={runtime: onnx}",
            "latency.runtime: unknown value 'onnx'; allowed: auto, compile, eager, graph, module:function",
        ),
        ("latency={runtime: openvino, dtype: bfloat16}", "latency.dtype: openvino is timed in float32"),
        ("nonsense", "expected key=value"),
    ],
)
def test_wrong_spaces(override: str, what: str, capsys: Capture, here: Path) -> None:
    line = fails(capsys, "search", "digits_demo", "--in-process", "--out", "study", "--set", override)

    assert what in line
    assert "allowed" in line
    assert list(here.iterdir()) == []


def test_an_unknown_space(capsys: Capture, here: Path) -> None:
    line = fails(capsys, "search", "digits_dem", "--out", "study")

    assert "did you mean 'digits_demo'?" in line
    assert list(here.iterdir()) == []


def test_missing_data(capsys: Capture, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_DATA", str(here / "nothing"))
    line = fails(capsys, "search", "cifar10_resnet20", "--in-process", "--out", "study")

    assert "cifar10" in line
    assert list(here.iterdir()) == []


def test_a_model_that_returns_a_dict(capsys: Capture, here: Path) -> None:
    (here / "net_of_dicts.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.conv = torch.nn.Conv2d(1, 10, 8)\n"
        "    def forward(self, x):\n        return {'logits': self.conv(x).flatten(1)}\n"
        "def build():\n    return Net()\n"
    )
    space = write_space(here / "s.yaml", task={"data": DIGITS_DATA, "model": {"factory": "net_of_dicts:build"}})

    assert "the model returns a dict" in fails(capsys, "search", space, "--in-process", "--out", "study")
    assert not (here / "study").exists()


def test_a_factory_that_does_not_exist(capsys: Capture, here: Path) -> None:
    space = write_space(here / "s.yaml", task={"data": DIGITS_DATA, "model": {"factory": "no_such_module:build"}})

    assert "no_such_module" in fails(capsys, "search", space, "--in-process", "--out", "study")
    assert not (here / "study").exists()


@pytest.mark.parametrize(
    ("damage", "what"),
    [("shape", "features.0.weight"), ("nan", "features.0.weight"), ("name", "features.0"), ("torn", "safetensors")],
)
def test_a_checkpoint_that_does_not_fit(damage: str, what: str, capsys: Capture, here: Path) -> None:
    tensors = {
        key: value.clone()
        for key, value in load_task({"data": DIGITS_DATA, "model": UNTRAINED}).build().state_dict().items()
    }
    weight = tensors["features.0.weight"]
    if damage == "shape":
        tensors["features.0.weight"] = weight[:-1].contiguous()
    elif damage == "nan":
        weight[3, 0, 1, 1] = torch.nan
    elif damage == "name":
        tensors["features.000.weight"] = tensors.pop("features.0.weight")
    save_file(tensors, here / "weights.safetensors")
    if damage == "torn":
        (here / "weights.safetensors").write_bytes(b"12345")
    model = {"name": "digits_net", "checkpoint": "weights.safetensors"}
    space = write_space(here / "s.yaml", task={"data": DIGITS_DATA, "model": model})

    assert what in fails(capsys, "search", space, "--in-process", "--out", "study")
    assert not (here / "study").exists()


def test_an_unreachable_target(capsys: Capture, here: Path) -> None:
    space = write_space(here / "s.yaml")
    line = fails(capsys, "search", space, "--in-process", "--out", "study", "--set", "space.target.flops=0.0001")

    assert "0.0001 cannot be reached" in line
    assert "allowed: flops >= 0.00" in line
    assert not (here / "study").exists()


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        ({"flops": 0.2}, "constraints.flops: 0.2 is below every target; allowed: 0.3, or lower targets"),
        ({"params": 0.001}, "constraints.params: 0.001 cannot be reached; allowed: 0."),
    ],
)
def test_a_constraint_that_nothing_can_keep(limits: dict[str, float], what: str, capsys: Capture, here: Path) -> None:
    space = write_space(here / "s.yaml", constraints=limits)

    assert what in fails(capsys, "search", space, "--in-process", "--out", "study")
    assert not (here / "study").exists()


def test_a_study_that_exists_is_not_touched(capsys: Capture, here: Path) -> None:
    (here / "study").mkdir()
    (here / "study" / "mine").write_text("kept")

    assert "study" in fails(capsys, "search", "digits_demo", "--in-process", "--out", "study")
    assert [path.name for path in (here / "study").iterdir()] == ["mine"]


def test_a_log_that_is_no_log(capsys: Capture, here: Path) -> None:
    study = write_study(here / "study", OUTCOMES)
    append_line(StudyFolder(here / "study").outcomes, "{]")

    assert "outcomes.jsonl:5: not JSON" in fails(capsys, "status", study)


def test_status_as_json(capsys: Capture, here: Path) -> None:
    facts = json.loads(works(capsys, "status", write_study(here / "study", OUTCOMES), "--json"))

    assert facts["trials"] == {"completed": 4, "stopped": 0, "failed": 0}
    assert [member["id"] for member in facts["front"]] == [3, 5, 7]
    assert facts["best_under_half"]["id"] == 5
    # (1 - 0.31) * 0.71 + (1 - 0.47) * (0.89 - 0.71) + (1 - 0.73) * (0.95 - 0.89)
    assert facts["hypervolume"] == pytest.approx(0.6015)
    assert facts["report"] is None


def test_status_as_text(capsys: Capture, here: Path) -> None:
    text = works(capsys, "status", write_study(here / "study", OUTCOMES))

    rows = [line.split() for line in text.splitlines()]
    assert ["5", "taylor", "89.00", "%", "0.4700", "0.4700", "0.4700", "0.2350", "4.7000"] in rows
    assert "trial 5" in text


def test_status_shows_finalists(capsys: Capture, here: Path) -> None:
    study = write_finished(here / "study")
    facts = json.loads(works(capsys, "status", study, "--json"))
    rows = [line.split() for line in works(capsys, "status", study).splitlines()]

    assert [(row["trial"], row["seeds"]) for row in facts["finalists"]] == [(5, 2), (0, 2)]
    # Means of two, and with two values the standard deviation is their distance over the root of two.
    assert facts["finalists"][0] == pytest.approx(
        {
            "trial": 5,
            "method": "taylor",
            "seeds": 2,
            "flops_ratio": 0.47,
            "searched": 0.89,
            "reproduced": 0.93 - 0.89,
            "validation": 0.93,
            "validation_std": 0.02 / 2**0.5,
            "test": 0.905,
            "test_std": 0.01 / 2**0.5,
            "against_dense": 0.905 - 0.94,
        }
    )
    assert facts["finalists_to_train"] == 0
    assert [
        "5",
        "taylor",
        "2",
        "0.4700",
        "93.00",
        "%",
        "1.41",
        "%",
        "90.50",
        "%",
        "0.71",
        "%",
        "-3.5",
        "points",
    ] in rows
    assert "they end +4.0 points to +4.0 points from what the search had found" in works(capsys, "status", study)


def test_report_writes_both_files_and_says_where(capsys: Capture, here: Path) -> None:
    paths = works(capsys, "report", write_study(here / "study", OUTCOMES)).split()

    assert [Path(path).name for path in paths] == ["report.html", "pareto.csv"]
    assert all((here / path).stat().st_size for path in paths)


def test_report_beside_others_and_for_a_paper(capsys: Capture, here: Path) -> None:
    study, other = write_study(here / "study", OUTCOMES), write_study(here / "last week", OUTCOMES)
    (here / "published.csv").write_text("accuracy,flops_ratio\n0.9,0.4\n")

    paths = works(capsys, "report", study, other, "published.csv", "--figure", "front.pdf").splitlines()

    assert [Path(path).name for path in paths] == ["comparison.html", "front.pdf"]
    assert "this study and last week are equal" in (here / "study/comparison.html").read_text(encoding="utf-8")
    assert not (here / "study/report.html").exists()
    assert (here / "front.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["absent.csv"], "absent.csv: cannot be read"),
        (["absent"], "no study in 'absent'"),
        (["--figure", "front.png"], "unknown kind of figure 'front.png'"),
        (["--figure", "absent/front.svg"], "absent"),
        (["--port", "8000"], "--port: is for --watch"),
        (["--watch", "--figure", "front.svg"], "--figure: a page that is served draws none"),
        (["--watch", "--port", "70000"], "70000 is out of range; allowed: [0, 65535]"),
    ],
)
def test_reports_that_cannot_be_written(capsys: Capture, here: Path, more: list[str], what: str) -> None:
    study = write_study(here / "study", OUTCOMES)

    assert what in fails(capsys, "report", study, *more)


def test_report_is_served_until_ctrl_c(capsys: Capture, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = write_study(here / "study", OUTCOMES)

    def interrupted(server: ThreadingHTTPServer) -> None:
        assert server.server_address[0] == "127.0.0.1"
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupted)

    assert re.fullmatch(
        r"http://127\.0\.0\.1:\d+/ follows .*/study until Ctrl-C\n", works(capsys, "report", study, "--watch")
    )
    assert not (here / "study/report.html").exists()


def test_finals_of_a_study_without_a_front_or_without_recipes(capsys: Capture, here: Path) -> None:
    assert "missing key 'space'" in fails(capsys, "finish", write_study(here / "study", OUTCOMES))
    config = yaml.safe_load((here / "study/study.yaml").read_text()) | {"space": {"method": "l1"}}
    (here / "study/study.yaml").write_text(yaml.safe_dump(config))

    assert "there is no recipe whose training a dense control could have" in fails(capsys, "finish", "study")
    (here / "study/outcomes.jsonl").unlink()
    assert "the front is empty: nothing to train again" in fails(capsys, "finish", "study")


def test_finals_while_a_search_runs(capsys: Capture, here: Path) -> None:
    study = write_study(here / "study", OUTCOMES)
    with lock(StudyFolder(here / "study")):
        assert "a search is running in this folder" in fails(capsys, "finish", study)


@pytest.mark.slow
def test_a_search_leaves_a_study(searched: Path) -> None:
    study = load_study(searched)

    assert len(study.outcomes) == 5
    assert not study.unfinished()
    assert searched.joinpath("report.html").stat().st_size > 10_000
    assert len(searched.joinpath("pareto.csv").read_text().splitlines()) > 1


@pytest.mark.slow
def test_a_search_of_the_same_name_is_refused(searched: Path, capsys: Capture) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in searched.rglob("*"))

    fails(capsys, "search", "digits_demo", "--in-process", "--out", str(searched))

    assert sorted((path, path.stat().st_mtime_ns) for path in searched.rglob("*")) == before


@pytest.mark.slow
def test_a_search_can_be_prolonged(searched: Path, capsys: Capture, here: Path) -> None:
    shutil.copytree(searched, here / "study")
    out = works(capsys, "resume", "study", "--in-process", "--trials", "7")

    study = load_study("study")
    assert len(study.outcomes) == len({outcome.id for outcome in study.outcomes}) == 7
    assert json.loads(out.splitlines()[-1])["trials"]["completed"] == 7
