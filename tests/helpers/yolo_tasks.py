"""Tasks of Ultralytics that load in a moment: a network of four stages and a few scenes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from scene_folders import write_yolo

needs_ultralytics = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None or importlib.util.find_spec("faster_coco_eval") is None,
    reason="the extra `ultralytics` is not installed",
)

NETWORK = """
nc: 80
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C2f, [16, True]]
  - [-1, 1, Conv, [24, 3, 2]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 3], 1, Concat, [1]]
  - [-1, 1, C2f, [16]]
  - [[7, 4], 1, Detect, [nc]]
"""


def write_network(folder: Path, head: str = "Detect") -> str:
    """The file of a small architecture."""
    file = folder / f"{head}.yaml"
    file.write_text(NETWORK.replace("Detect", head))
    return str(file)


def yolo_spec(folder: Path, **changes: Any) -> dict[str, Any]:
    """A task of 24 scenes of 64 x 64 pixels to train on; `changes` replace keys of `data`, or are top keys."""
    folder.mkdir(exist_ok=True)
    if not (folder / "scenes.yaml").exists():
        write_yolo(folder, {"train": 24, "val": 6, "test": 5})
    data = {"yaml": str(folder / "scenes.yaml"), "size": 64, "workers": 0}
    data |= {key: changes.pop(key) for key in list(changes) if key in {"yaml", "size", "workers"}}
    model = {"name": write_network(folder), "train": {"images": 0}}
    return {"kind": "ultralytics", "data": data, "model": model, **changes}
