"""Trial folders: written whole, found by number, removed."""

import pytest

from autoprune.search.running.trial_folders import TrialFolders


def test_a_model_is_replaced_as_a_whole(tmp_path):
    folders = TrialFolders(tmp_path)
    folders.write(3, {"a": b"1", "b": b"2"})
    folders.write(3, {"a": b"7"})

    assert [(path.name, path.read_bytes()) for path in (tmp_path / "3").iterdir()] == [("a", b"7")]
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_files_come_back_as_they_were_those_in_folders_too(tmp_path):
    folders, files = TrialFolders(tmp_path / "states"), {"a": b"1", "deep/b": b"\0"}
    folders.write(11, files)

    assert folders.read(11) == files
    assert 11 in folders
    assert 1 not in folders


def test_numbers_are_those_of_whole_folders(tmp_path):
    folders = TrialFolders(tmp_path)
    assert TrialFolders(tmp_path / "none").numbers() == set()
    for number in (3, 7, 13):
        folders.write(number, {"a": b""})
    (tmp_path / ".5.torn").mkdir()
    assert folders.numbers() == {3, 7, 13}
    folders.remove({7, 13})
    folders.remove_torn()
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_what_is_not_there_can_be_removed_as_well(tmp_path):
    folders = TrialFolders(tmp_path)
    folders.write(3, {"a": b""})
    folders.discard(7)
    folders.remove({3, 7})

    assert folders.numbers() == set()


@pytest.mark.parametrize(("sealed", "left"), [(True, {}), (False, {"a": b"11"})])
def test_what_is_sealed_reads_as_it_was_written_or_as_nothing(tmp_path, sealed, left):
    folders = TrialFolders(tmp_path, sealed=sealed)
    folders.write(3, {"a": b"7", "deep/b": b"13"})
    assert folders.read(3) == {"a": b"7", "deep/b": b"13"}
    (tmp_path / "3" / "a").write_bytes(b"11")
    (tmp_path / "3" / "deep" / "b").unlink()

    assert folders.read(3) == left


def test_what_was_written_before_there_were_seals_is_read(tmp_path):
    TrialFolders(tmp_path).write(3, {"a": b"7"})

    assert TrialFolders(tmp_path, sealed=True).read(3) == {"a": b"7"}
