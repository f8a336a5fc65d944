"""Nothing that a study folder or a space file holds is run, but for the factories that a space file names.

Who listens on which network is tried in tests/search/on_ray/test_cluster.py.
"""

from __future__ import annotations

import ast
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import DIGITS_DATA, OUTCOMES, Capture, fails, works, write_space, write_study
from told_progress import tell

from autoprune.cli import parser
from autoprune.errors import InputError
from autoprune.search.running.session import Session
from autoprune.study.folder import StudyFolder
from autoprune.training.fit import _read_state
from autoprune.trial.cache import FolderStore, StudyCache

ROOT = Path(__file__).resolve().parents[2]
MODULES = [file for folder in ("autoprune", "analysis", "cluster") for file in sorted((ROOT / folder).rglob("*.py"))]

#: Modules that turn bytes into objects by running code.
UNPICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "pandas.read_pickle"}

#: What a loader must be told to read plain data only.
PLAIN = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


class Trap:
    """Unpickling one makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.file, "w")


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call of something that has a dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Attribute, ast.Name)):
            yield ast.unparse(node.func), node


def unsafe_loads(code: str) -> list[str]:
    """Where code could unpickle."""
    tree, found = ast.parse(code), []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"{node.lineno}: import {name}" for name in names if name in UNPICKLERS]  # type: ignore[attr-defined]
    for name, call in calls(tree):
        keyword, value = PLAIN.get(name, ("", None))
        given = {part.arg: ast.unparse(part.value) for part in call.keywords}
        if name.endswith((".read_pickle", "marshal.loads", "marshal.load", "yaml.unsafe_load", "yaml.full_load")):
            found.append(f"{call.lineno}: {name}")
        elif keyword and given.get(keyword) != repr(value):
            found.append(f"{call.lineno}: {name} without {keyword}={value}")
    return found


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_module_unpickles(file: Path) -> None:
    assert unsafe_loads(file.read_text(encoding="utf-8")) == []


def test_the_check_sees_what_it_is_for() -> None:
    unsafe = ("import pickle", "np.load(f)", "torch.load(f, weights_only=False)", "pd.read_pickle(f)")
    code = "\n".join((*unsafe, "torch.load(f, weights_only=True)"))

    assert [line.partition(":")[0] for line in unsafe_loads(code)] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [sprung]", "!!python/name:os.mkdir"])
def test_tags_of_python_in_yaml_are_refused(here: Path, capsys: Capture, tag: str) -> None:
    space = here / "space.yaml"
    space.write_text(Path(write_space(space)).read_text() + f"seed: {tag}\n")
    folder = write_study(here / "study", OUTCOMES)
    StudyFolder(Path(folder)).config.write_text(f"task: {tag}\n")

    for argv in (("search", "space.yaml"), ("search", "digits_demo", "--set", f"seed={tag}"), ("status", folder)):
        assert "could not determine a constructor for the tag" in fails(capsys, *argv)
    assert not (here / "sprung").exists()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "argv",
    [
        ("status", "study"),
        ("status", "study", "--json"),
        ("status", "study", "--watch"),
        ("report", "study"),
        ("inspect", "digits_net", "--input", "1x8x8", "--classes", "10"),
        ("methods",),
        ("spaces",),
        ("cluster",),
    ],
    ids=" ".join,
)
def test_commands_that_look_import_none_of_the_factories(here: Path, capsys: Capture, argv: tuple[str, ...]) -> None:
    (here / "mine.py").write_text("open('imported', 'w')\n")
    study = write_study(here / "study", OUTCOMES)
    tell(study, "ended")
    config = StudyFolder(Path(study)).config
    named = {"kind": "mine:Task", "model": {"factory": "mine:build"}, "data": {"function": "mine:data"}}
    named |= {"loss": "mine:loss", "metric": "mine:metric"}
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "task": named}))
    works(capsys, *argv)

    assert not (here / "imported").exists()


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose search was cut short while trials waited at their rungs."""
    folder = tmp_path_factory.mktemp("paused")
    space = write_space(
        folder / "s.yaml",
        task={"data": DIGITS_DATA, "model": {"name": "digits_net", "train": {"images": 640}}},
        space={
            "method": {"choice": {"taylor": {"images": 64}, "bn_scale": {}}},
            "target": {"flops": {"float": [0.3, 0.7]}},
            "weights": {"choice": ["trained", "front"]},
            "training": {"images": 640, "batch_size": 64, "rungs": [0, 0.5, 1]},
        },
        cascade={"keep": 0.5},
        budget={"trials": 7},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "close", lambda _session: None)
        assert parser.main(["search", space, "--in-process", "--out", str(folder / "study")]) == 0
    return folder / "study"


def write_arrays(trap: Trap, file: Path) -> None:
    with file.open("wb") as stream:
        np.savez(stream, **{"features.0": np.array([trap], dtype=object)})


WRITERS = {
    "torch": torch.save,
    "pickle": lambda trap, file: file.write_bytes(pickle.dumps(trap)),
    "numpy": write_arrays,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
def test_no_file_of_a_study_folder_is_unpickled(here: Path, paused: Path, kind: str, capsys: Capture) -> None:
    """Weights, checkpoints and shared numbers become files that leave a trace where they are unpickled."""
    folder, trap = StudyFolder(here / "study"), Trap(here / "sprung")
    shutil.copytree(paused, folder.path)
    files = [file for part in (folder.models, folder.shared, folder.states) for file in part.rglob("*")]
    files = [file for file in files if file.is_file() and file.suffix != ".json"]
    assert {"models", "shared", "states"} == {file.relative_to(folder.path).parts[0] for file in files}
    for file in files:
        WRITERS[kind](trap, file)
    checkpoints = list(folder.states.rglob("*.pt"))
    assert checkpoints
    for file in checkpoints:  # which of them a resumed search goes on from depends on how long its trials take
        with pytest.raises(InputError, match="not a readable checkpoint"):
            _read_state(file, "cpu")
    for argv in (
        ("status", "study"),
        ("report", "study"),
        ("resume", "study", "--in-process", "--trials", "11"),
        ("finish", "study", "--in-process", "--seeds", "1", "--most", "1", "--images", "64"),
        ("replay", "study", "--trial", "2"),
        ("export", "study", "--to", "small"),
    ):
        parser.main(argv)
        assert not Path(trap.file).exists(), argv
    assert "checksum differs" in capsys.readouterr().err
    pickle.loads(pickle.dumps(trap)).close()
    assert Path(trap.file).exists()


@pytest.mark.parametrize("kind", ["pickle", "numpy"])
def test_shared_numbers_are_not_unpickled(here: Path, kind: str) -> None:
    trap, store = Trap(here / "sprung"), FolderStore(here)
    WRITERS[kind](trap, here / "key")

    with pytest.raises(ValueError, match="allow_pickle="):
        StudyCache(store).numbers("key", ["features.0"], dict)
    assert not Path(trap.file).exists()


def launch_files() -> list[Path]:
    """The launch files that start a Ray of their own."""
    return [file for file in sorted((ROOT / "cluster").rglob("*")) if file.is_file() and "ray start" in _text_of(file)]


def _text_of(file: Path) -> str:
    return "" if file.suffix in {".pyc", ".md"} else file.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", launch_files(), ids=lambda file: file.name)
def test_launch_files_ask_for_tokens_and_show_the_dashboard_to_nobody_else(file: Path) -> None:
    text = _text_of(file)
    heads = [line for line in text.splitlines() if re.search(r"[ (]--head\b", line) and "#" not in line]
    closed = [line for line in heads if re.search(r"--dashboard-host=127\.0\.0\.1|--include-dashboard=false", line)]

    assert heads
    assert closed == heads
    assert "RAY_AUTH_MODE=token" in text
