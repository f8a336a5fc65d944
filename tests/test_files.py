"""Files appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

import pytest
from disks import full_disk

from autoprune.errors import InputError
from autoprune.files import file_trouble, new_folder, read_files, write_atomically, write_files, written_whole


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


def test_a_file_has_no_visible_name_until_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"old")

    with written_whole(file) as beside:
        beside.write_bytes(b"new")
        assert (file.read_bytes(), list(tmp_path.glob("[!.]*"))) == (b"old", [file])
        assert beside.name.startswith(".weights.pt.")
        assert beside.suffix == ".partial"
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    file = tmp_path / "file"

    with written_whole(file) as first, written_whole(file) as second:
        first.write_text("first")
        second.write_text("second")
    assert file.read_text() == "first"  # the outer block ended last
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("kind", ["file", "folder", "neither"])
def test_what_was_interrupted_leaves_nothing(tmp_path: Path, kind: str) -> None:
    (tmp_path / "old").write_text("kept")

    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "old") as beside:  # noqa: PT012
        if kind == "file":
            beside.write_text("half")
        elif kind == "folder":
            beside.mkdir()
            (beside / "inside").write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "kept"


def test_a_folder_takes_the_place_of_an_empty_one_but_of_no_other(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")

    for name in ("empty", "full"):
        with contextlib.suppress(OSError), written_whole(tmp_path / name) as beside:
            beside.mkdir()
            (beside / "new").write_text("")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "empty",
        "empty/new",
        "full",
        "full/mine",
    ]


def test_a_hidden_path_may_lie_in_another_folder(tmp_path: Path) -> None:
    target = tmp_path / "later" / "file"

    with written_whole(target, within=tmp_path) as beside:
        beside.write_text("7")
        target.parent.mkdir()
    assert (beside.parent, target.read_text()) == (tmp_path, "7")


def test_files_of_a_numbered_folder_replace_those_before(tmp_path: Path) -> None:
    write_files(tmp_path, 3, {"a": b"1", "b/c": b"2"})
    assert read_files(tmp_path / "3") == {"a": b"1", "b/c": b"2"}

    write_files(tmp_path, 3, {"a": b"7"})
    assert read_files(tmp_path / "3") == {"a": b"7"}
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


@pytest.mark.parametrize("out", ["/proc/here", "file/below"])
def test_a_place_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError) as caught, new_folder(tmp_path / out):
        pass
    assert caught.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_new_folder_appears_with_its_parents_when_the_block_ends_well(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with new_folder(out) as beside:
        (beside / "inside").write_text("7")
        assert not out.parent.exists()
    assert (out / "inside").read_text() == "7"

    with pytest.raises(KeyError), new_folder(tmp_path / "broken" / "out") as beside:
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    with pytest.raises(InputError, match="already exists"), new_folder(out):
        pass


def test_a_full_disk_is_said_of_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(InputError, match=r"page\.html: cannot write: File too large; .* disk with room"), full_disk(9):
        write_atomically(page, "x" * 5000)
    full = full_disk(9)
    with pytest.raises(InputError, match="out: cannot write: File"), full, new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("x" * 5000)
    assert list(tmp_path.iterdir()) == []


def test_libraries_that_wrap_the_system_s_error_are_understood() -> None:
    error = RuntimeError("writing failed")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "a.bin")

    assert str(file_trouble(error)) == "a.bin: No space left on device; allowed: a disk with room"
    assert str(file_trouble(ValueError("I/O error: File too large (os error 27)"))).startswith("File too large")
    assert file_trouble(ValueError("something else")) is None
    assert file_trouble(TimeoutError("slow")) is None
