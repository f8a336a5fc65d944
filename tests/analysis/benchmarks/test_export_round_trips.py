"""Exported files beside the model: what was measured of twenty networks and every method, and how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autoprune import methods
from autoprune.analysis.benchmarks import export_round_trips as trips
from autoprune.export.formats import TOLERANCE

ROWS = Path(__file__).parents[3] / "analysis" / "benchmarks" / "export_round_trips.jsonl"
EXACT = ("artefact", "onnx", "pt2", "openvino")


def row(name: str, difference: float = 3e-7, same: int = 48) -> dict[str, Any]:
    found = {form: {"difference": difference, "same_class": same, "megabytes": 0.5} for form in EXACT}
    return {"name": name, "images": 48, "formats": {**found, "int8": {**found["onnx"], "difference": 0.031}}}


def test_twenty_networks_and_every_method_were_measured() -> None:
    found = trips.read(ROWS)

    assert len(trips.NETWORKS) == 20
    assert set(found) == {*trips.NETWORKS, *methods.names()}


@pytest.mark.parametrize("name", [*trips.NETWORKS, *methods.names()])
def test_files_compute_what_the_model_computes(name: str) -> None:
    found = trips.read(ROWS)[name]
    formats = found["formats"]

    assert {form for form in EXACT if not formats[form]["difference"] <= TOLERANCE} == set()
    assert {form for form in EXACT if formats[form]["same_class"] != found["images"]} == set()
    assert formats["int8"]["difference"] > formats["onnx"]["difference"]


def test_the_page_has_a_line_for_each() -> None:
    rows = {"timm/dla34": row("timm/dla34"), "l1": row("l1", same=47), "ldrf": {"name": "ldrf", "error": "no model"}}
    text = trips.page(rows, "torch 2.11.0, timm 1.0.3")

    assert "; torch 2.11.0, timm 1.0.3. `python -m" in text
    exact = "| 3e-07 | 3e-07 | 3e-07 | 3e-07 |"
    assert f"| `timm/dla34` {exact} 48 of 48 | 0.03 | 48 of 48 |" in text
    assert f"| `l1` {exact} 47 of 48 | 0.03 | 47 of 48 |" in text
    assert "| `ldrf` | no model |" in text
    assert text.index("## Networks") < text.index("dla34") < text.index("## Methods") < text.index("`l1`")


def test_the_last_row_of_a_name_counts(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row('l1', same=n))}\n" for n in (46, 47)))

    assert trips.read(tmp_path / "rows.jsonl")["l1"]["formats"]["onnx"]["same_class"] == 47
    assert trips.read(tmp_path / "none.jsonl") == {}


@pytest.mark.slow
def test_a_network_goes_through_every_format(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    found = trips.of_network("timm/regnetx_002", tmp_path)

    assert {form for form in EXACT if not found[form]["difference"] <= TOLERANCE} == set()
    assert found["int8"]["megabytes"] < 0.5 * found["onnx"]["megabytes"]
