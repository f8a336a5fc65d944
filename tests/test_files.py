"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprune.errors import InputError
from autoprune.files import write_atomically


def test_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")

    assert write_atomically(path, "neu: ≤\n") == path
    assert path.read_bytes() == "neu: ≤\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_it(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()

    assert write_atomically(tmp_path / "page", "").stat().st_mode == plain.stat().st_mode


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent/page: cannot write: No such file or directory; allowed: a file in"):
        write_atomically(tmp_path / "absent" / "page", "")


def test_a_folder_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "page" / "inside").mkdir(parents=True)

    with pytest.raises(InputError, match="cannot write"):
        write_atomically(tmp_path / "page", "")
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
