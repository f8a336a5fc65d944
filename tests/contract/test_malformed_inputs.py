"""Malformed inputs of all commands end with exit code 2 and one line that says what, where and what is allowed.

They are listed in `tests/data/malformed_inputs.yaml`, by hand and as `helpers/fuzzing.py` drew them. Nothing of them
stays.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import OUTCOMES, write_space, write_study

from autoprune.cli import parser
from autoprune.errors import LINE

CASES = yaml.safe_load((Path(__file__).parents[1] / "data/malformed_inputs.yaml").read_text())
#: So many were asked for.
WANTED = 200

#: What a case leaves as it is of its space file s.yaml.
DATA = "{function: 'faulty_code:data', arguments: {kind: shares}}"
MODEL = "{factory: 'faulty_code:build'}"
SPACE = """task:
  data: {data}
  model: {model}
space: {{method: l1, target: {{flops: 0.5}}, training: {{images: 64, batch_size: 8}}}}
budget: {{trials: 3}}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space file and a study without a fault."""
    folder = tmp_path_factory.mktemp("whole")
    write_space(folder / "ok.yaml")
    write_study(folder / "study", OUTCOMES)
    return folder


@pytest.fixture
def here(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it, and an empty folder of data; temporary files are in it as well."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("AUTOPRUNE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(whole))  # torch makes it when it is imported
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def prepare(case: Mapping[str, Any]) -> None:
    """Write the files of a case, and change what it changes of the whole ones."""
    if "data" in case or "model" in case:
        Path("s.yaml").write_text(SPACE.format(data=case.get("data", DATA), model=case.get("model", MODEL)))
    for name, text in case.get("files", {}).items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    for name, was, now in case.get("edits", ()):
        text = Path(name).read_text()
        assert was in text, f"{name} has no {was!r}"
        Path(name).write_text(text.replace(was, now, 1))


@pytest.mark.parametrize("case", CASES, ids=[f"{number}: {case['run'][:60]}" for number, case in enumerate(CASES)])
def test_one_line_says_what_is_wrong(case: Mapping[str, Any], here: Path) -> None:
    prepare(case)
    before, out, err = listing(here), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = parser.main(shlex.split(case["run"]))
    line = err.getvalue()

    assert (code, out.getvalue()) == (2, ""), line
    assert line.startswith("autoprune: error: ")
    assert line.endswith("\n")
    assert "\n" not in line[:-1]
    assert len(line) - 1 <= LINE
    assert not any(word in line for word in ("this is a bug", "Traceback", "\x1b"))
    assert case["says"] in line
    assert listing(here) == before


def test_there_are_as_many_as_were_asked_for() -> None:
    commands = {case["run"].split(" ")[0] for case in CASES}

    assert len(CASES) >= WANTED
    assert commands >= {
        *("search", "resume", "finish", "status", "report", "replay", "export", "verify"),
        "choose",
        "prune",
    }
    assert commands >= {"inspect", "methods", "spaces", "cluster"}
