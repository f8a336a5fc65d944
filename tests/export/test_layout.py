"""Records of exports name files of their folder, or are refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from autoprune.errors import InputError
from autoprune.export.layout import HUB, files_of


def test_the_files_of_a_record() -> None:
    files = {"onnx": ["onnx/model.onnx"], "openvino": [HUB.openvino, HUB.openvino_weights]}

    assert files_of({"files": files}, "export.json") == files
    assert HUB.openvino_weights == "openvino/openvino_model.bin"


@pytest.mark.parametrize(
    ("record", "what"),
    [
        ({}, "export.json: names no files: None"),
        ({"files": []}, r"export.json: names no files: \[\]"),
        ({"files": {"pickle": ["model.pkl"]}}, "export.json: unknown format 'pickle'"),
        ({"files": {"onnx": "model.onnx"}}, "export.json: files.onnx: 'model.onnx' are no files; allowed: a list of"),
        ({"files": {"onnx": []}}, r"export.json: files.onnx: \[\] are no files"),
        ({"files": {"onnx": ["../model.onnx"]}}, "paths inside the folder"),
        ({"files": {"onnx": ["/etc/passwd"]}}, "paths inside the folder"),
        ({"files": {"onnx": [3]}}, r"export.json: files.onnx: \[3\] are no files"),
    ],
)
def test_files_elsewhere_are_refused(record: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        files_of(record, "export.json")
