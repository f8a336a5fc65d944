"""Segmentation and detection tasks that load in a moment: a few small scenes and untrained networks."""

from __future__ import annotations

from typing import Any

SCENES = {"size": 32, "most": 2, "train": 32, "validation": 6, "test": 6}

UNET: dict[str, Any] = {
    "kind": "segmentation",
    "data": {"name": "digit_scenes", "arguments": SCENES},
    "model": {"name": "unet", "arguments": {"widths": [7, 11]}, "train": {"images": 0}},
    "loss": {"cross_entropy": 1, "dice": 1},
}
RETINANET: dict[str, Any] = {
    "kind": "detection",
    "data": {"name": "digit_scenes", "arguments": SCENES},
    "model": {
        "name": "small_retinanet",
        "arguments": {"widths": [7, 11], "pyramid": 13, "depth": 1, "anchors": [10, 18]},
        "train": {"images": 0},
    },
}
