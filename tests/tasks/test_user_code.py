"""Functions of users: what they raise is one line that says where in their file, and a script does not end us."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from autoprune.errors import DataError, InputError, ModelError
from autoprune.tasks.user_code import call, load_object


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def ends() -> None:
    sys.exit("bye")


def breaks(*, width: int = 7) -> None:
    raise RuntimeError(f"boom\nat {width}")


def test_a_script_that_ends_itself_does_not_end_the_command(here: Path) -> None:
    (here / "a_script.py").write_text("import sys\nsys.exit(0)\n")

    with pytest.raises(InputError, match="'a_script:build' cannot be imported: SystemExit: 0; allowed: a module"):
        load_object("a_script:build", "task.model.factory")
    with pytest.raises(DataError, match=r"m:ends failed: SystemExit: bye \(test_user_code\.py:\d+: sys\.exit"):
        call("m:ends", ends, {}, where="task.data", kind=DataError)


def test_an_error_of_the_user_s_code_has_its_place() -> None:
    with pytest.raises(ModelError, match=r"^task: m:breaks failed: RuntimeError: boom \(test_user_code\.py:\d+: raise"):
        call("m:breaks", breaks, {"width": 3}, where="task", kind=ModelError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 3}, "m:breaks cannot be called with depth: got an unexpected keyword argument 'depth'"),
        ({"a": 1, "b": 2}, r"with a, b: .*; allowed: `arguments` for breaks\(\*, width: 'int' = 7\)"),
    ],
)
def test_arguments_that_it_does_not_take(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        call("m:breaks", breaks, arguments, where="task", kind=ModelError)


def test_a_module_that_is_not_here_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_needs_more.py").write_text("import a_library_that_is_missing\n")

    with pytest.raises(InputError, match=r"no module 'mine_elsewhere' here; allowed: run it in .* mine_elsewhere.py"):
        load_object("mine_elsewhere:build", "task")
    with pytest.raises(InputError, match=r"No module named 'a_library_that_is_missing'$"):
        load_object("mine_needs_more:build", "task")
