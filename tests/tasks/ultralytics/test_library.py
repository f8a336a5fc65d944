"""Ultralytics is imported on our terms, or its absence is said in one line."""

import importlib.util
import os

import pytest

from autoprune.errors import InputError
from autoprune.tasks import load_task
from autoprune.tasks.ultralytics.library import ENVIRONMENT, require_ultralytics


def test_without_the_package_the_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(
        InputError, match=r"task: ultralytics not installed; run: pip install 'autoprune\[ultralytics\]'"
    ):
        load_task({"kind": "ultralytics", "data": {"yaml": "a.yaml"}, "model": {"name": "yolov8n.yaml"}})


def test_what_the_user_sets_stays(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setenv("AUTOPRUNE_DATA", str(tmp_path))
    for name in (*ENVIRONMENT, "YOLO_CONFIG_DIR"):
        monkeypatch.setenv(name, "")  # restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("YOLO_VERBOSE", "true")

    require_ultralytics("task")

    assert {name: os.environ[name] for name in ENVIRONMENT} == {**ENVIRONMENT, "YOLO_VERBOSE": "true"}
    assert os.environ["YOLO_CONFIG_DIR"] == str(tmp_path)
