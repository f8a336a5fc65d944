"""A store of bytes: whole files, first come first kept, bounded."""

import os
from pathlib import Path

from autoprune.trial.cache import FolderStore


def test_what_was_put_is_found_and_never_replaced(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "shared")
    assert store.get("a") is None
    store.put("a", b"one")
    store.put("a", b"two")

    assert (store.get("a"), store.get("b")) == (b"one", None)
    assert FolderStore(tmp_path / "shared").get("a") == b"one"
    assert [file.name for file in (tmp_path / "shared").iterdir()] == ["a"]


def test_what_was_not_used_for_longest_goes(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, limit=23)
    for age, key in enumerate("abc"):
        store.put(key, bytes(7))
        os.utime(tmp_path / key, ns=(age, age))
    assert store.get("a") == bytes(7)  # used just now
    store.put("d", bytes(7))
    assert {file.name for file in tmp_path.iterdir()} == {"a", "c", "d"}
    store.put("e", bytes(24))
    assert store.get("e") is None
    assert {file.name for file in tmp_path.iterdir()} == {"a", "c", "d"}
