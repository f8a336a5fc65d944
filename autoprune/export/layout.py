"""Where the files of an export lie inside its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from autoprune.errors import ArtifactError, brief_repr, check_name

MODEL_CARD, RECORD = "README.md", "export.json"

#: Every form that a model may be handed over in.
ARTEFACT, ONNX, PROGRAM, INT8, OPENVINO = "artefact", "onnx", "pt2", "int8", "openvino"
FORMATS = (ARTEFACT, ONNX, PROGRAM, INT8, OPENVINO)

#: Those of them that are written on demand, and the extra that brings what they need.
ON_DEMAND = {INT8: "onnx", OPENVINO: "openvino"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Paths inside the folder; the weights of `openvino` lie beside it, as `.bin`."""

    onnx: str = "model.onnx"
    program: str = "model.pt2"
    int8: str = "model.int8.onnx"
    openvino: str = "model.xml"

    @property
    def openvino_weights(self) -> str:
        """The second file of the format."""
        return f"{self.openvino.removesuffix('.xml')}.bin"


#: A folder of its own, and a repository on the Hugging Face Hub, whose tools look for these names.
PLAIN = Layout()
HUB = Layout(onnx="onnx/model.onnx", int8="onnx/model_int8.onnx", openvino="openvino/openvino_model.xml")


def files_of(record: Mapping[str, Any], where: str) -> dict[str, list[str]]:
    """Format -> its files, as the record of an export names them.

    Raises:
        ArtifactError: it names none, or one outside of the folder.
    """
    files = record.get("files")
    if not isinstance(files, dict) or not files:
        raise ArtifactError(f"names no files: {brief_repr(files)}", where=where, allowed="an export as it was written")
    for name, paths in files.items():
        check_name(name, FORMATS, kind="format", where=where)
        if not isinstance(paths, list) or not paths or not all(map(_is_inside, paths)):
            allowed = "a list of paths inside the folder"
            raise ArtifactError(f"{brief_repr(paths)} are no files", where=f"{where}: files.{name}", allowed=allowed)
    return files


def _is_inside(path: object) -> bool:
    return isinstance(path, str) and not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts
