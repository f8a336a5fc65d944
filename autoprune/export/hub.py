"""What a repository on the Hugging Face Hub has beside the files of an export: metadata, a config, rules for git."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from autoprune.study.metric import read_metric

#: Kinds of tasks by the Hub's names of what models do.
PIPELINES = {
    "classification": "image-classification",
    "segmentation": "image-segmentation",
    "detection": "object-detection",
    "ultralytics": "object-detection",
}

#: Files that git leaves to its extension for large ones.
LARGE = ("*.safetensors", "*.onnx", "*.pt2", "*.bin")


def front_matter(record: Mapping[str, Any]) -> str:
    """The block of YAML that the Hub reads at the top of a model card."""
    pipeline, metric = _pipeline(record), read_metric(record.get("metric") or {}, "export.json: metric")
    plain: dict[str, Any] = {"library_name": "autoprune", "tags": ["pruning", "structured-pruning", *record["files"]]}
    plain |= {"pipeline_tag": pipeline} if pipeline else {}
    plain["metrics"] = [metric.name]
    results = _results(record, metric.name)
    if pipeline and results:
        task, data = {"type": pipeline}, _dataset(record)
        entries = [{"task": task, "dataset": {**data, "split": split}, "metrics": [found]} for split, found in results]
        plain["model-index"] = [{"name": f"{_model_name(record)}-pruned", "results": entries}]
    return f"---\n{yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)}---\n\n"


def write_files(record: Mapping[str, Any], folder: Path) -> None:
    """`config.json`, by which the Hub counts downloads, and `.gitattributes`."""
    kept = ("input", "pixels", "groups")
    widths = (record.get("outcome") or {}).get("widths") or {}
    config = {"model_type": "autoprune", "architectures": [_model_name(record)], "widths": widths}
    config |= {name: record[name] for name in kept if record.get(name)}
    (folder / "config.json").write_text(json.dumps(config, indent=2, allow_nan=False) + "\n")
    rules = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE)
    (folder / ".gitattributes").write_text(rules)


def _pipeline(record: Mapping[str, Any]) -> str | None:
    return PIPELINES.get(str((record.get("task") or {}).get("kind", "classification")))


def _results(record: Mapping[str, Any], metric: str) -> list[tuple[str, dict[str, Any]]]:
    """(split, value) of what was measured."""
    outcome = record.get("outcome") or {}
    found = {"validation": outcome.get(metric), "test": outcome.get(f"test_{metric}")}
    return [(split, {"type": metric, "value": value}) for split, value in found.items() if value is not None]


def _dataset(record: Mapping[str, Any]) -> dict[str, str]:
    data = (record.get("task") or {}).get("data") or {}
    name = str(data.get("name") or data.get("function") or data.get("factory") or "unnamed")
    return {"name": name, "type": name}


def _model_name(record: Mapping[str, Any]) -> str:
    model = (record.get("task") or {}).get("model") or {}
    return str(model.get("name") or model.get("factory") or "model")
