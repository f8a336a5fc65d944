"""The layout of the Hugging Face Hub: what its tools look for is there, and the files are checked like any others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import DIGITS_DATA, UNTRAINED

from autoprune.engine.keep import Keep
from autoprune.engine.surgery import artifact
from autoprune.engine.surgery.prune import prune
from autoprune.engine.tracing.trace import trace
from autoprune.export import formats, hub
from autoprune.tasks import Task, load_task

DIGITS = {"kind": "classification", "data": DIGITS_DATA, "model": UNTRAINED}


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task(DIGITS)


@pytest.fixture(scope="module")
def exported(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, model = tmp_path_factory.mktemp("hub"), task.model()
    graph = trace(model, task.example())
    keep = Keep.of({group.id: range(1, group.size) for group in graph.prunable})
    artifact.save(folder / "artefact", prune(model, graph, keep), graph, keep)
    outcome = {"recipe": {"method": {"name": "l1"}}, "accuracy": 0.9137, "test_accuracy": 0.8983, "widths": {"a": 7}}
    facts = {"task": DIGITS, "outcome": outcome, "pixels": task.input_facts()}
    options: dict[str, Any] = {"info": facts, "also": ["int8"], "for_hub": True, "task": task}
    formats.export(folder / "artefact", task.build, task.example(), folder / "out", **options)
    return folder / "out"


def test_files_lie_where_the_hub_looks_for_them(exported: Path) -> None:
    found = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}

    assert found == {
        *("README.md", "config.json", "export.json", "model.json", "model.pt2", "model.safetensors", ".gitattributes"),
        *("onnx/model.onnx", "onnx/model_int8.onnx"),
    }
    assert json.loads((exported / "config.json").read_text())["architectures"] == ["digits_net"]
    assert "*.onnx filter=lfs diff=lfs merge=lfs -text\n" in (exported / ".gitattributes").read_text()


def test_the_card_begins_with_what_the_hub_reads(exported: Path) -> None:
    _, block, card = (exported / "README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(block)
    splits = {entry["dataset"]["split"]: entry for entry in facts["model-index"][0]["results"]}

    assert card.startswith("\n# digits_net, pruned\n")
    assert 'InferenceSession("onnx/model.onnx"' in card
    assert (facts["pipeline_tag"], facts["metrics"]) == ("image-classification", ["accuracy"])
    assert splits["test"]["metrics"] == [{"type": "accuracy", "value": 0.8983}]
    assert splits["validation"]["metrics"] == [{"type": "accuracy", "value": 0.9137}]
    assert splits["test"]["dataset"] == {"name": "digits", "type": "digits", "split": "test"}


def test_verify_finds_the_files_there(exported: Path, task: Task) -> None:
    assert set(formats.verify(exported, task)) == {"artefact", "onnx", "pt2", "int8"}


def test_a_task_of_ones_own_has_no_kind_that_the_hub_knows() -> None:
    block = hub.front_matter({"files": {"onnx": ["model.onnx"]}, "task": {"kind": "mine:Heights"}})

    assert set(yaml.safe_load(block.strip("-\n"))) == {"library_name", "tags", "metrics"}
