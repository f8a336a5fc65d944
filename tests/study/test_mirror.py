"""A study on storage elsewhere: what is copied when, who holds it, and which copy is the one to go on with.

The storage is pyarrow's of local files, behind the same interface as S3 and Google Cloud Storage.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Capture, fails, works, write_space

from autoprune.errors import InputError, StudyError
from autoprune.files import is_url
from autoprune.search import resume, search
from autoprune.study import mirror
from autoprune.study.folder import load_study
from autoprune.study.log import append_line
from autoprune.study.mirror import Mirror, study_at


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the objects lie; the folders that stand for them are in a home of their own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


@pytest.fixture
def url(storage: Path) -> str:
    return f"file://{storage}/study"


def begin(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text("seed: 7\n")
    append_line(folder / "outcomes.jsonl", "one")


def test_only_urls_are_elsewhere() -> None:
    places = ("s3://b/p", "runs/demo", Path("runs/demo"), None)

    assert [is_url(place) for place in places] == [True, False, False, False]


def test_what_changes_is_copied_and_what_is_removed_goes_there_too(storage: Path, url: str) -> None:
    with study_at(url, new=True) as folder:
        begin(folder)
        (folder / "models" / "3").mkdir(parents=True)
        (folder / "models" / "3" / "model.json").write_text("7")
        (folder / "shared").mkdir()
        (folder / "shared" / "key").write_text("only a cache")
    there = storage / "study"
    assert (there / "models" / "3" / "model.json").read_text() == "7"
    assert sorted(path.name for path in there.iterdir()) == ["models", "outcomes.jsonl", "study.yaml"]
    with study_at(url) as folder:
        (folder / "models" / "3" / "model.json").unlink()
        append_line(folder / "outcomes.jsonl", "two")

    assert not (there / "models" / "3" / "model.json").exists()
    assert (there / "outcomes.jsonl").read_text() == "one\ntwo\n"


def test_logs_come_after_what_they_speak_of_and_as_they_were_before(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Mirror(url)
    begin(place.folder)
    (place.folder / "models").mkdir()
    (place.folder / "models" / "model.json").write_text("7")
    order, write = [], place._write

    def note(name: str, content: bytes) -> None:
        if not order:
            append_line(place.folder / "outcomes.jsonl", "two")  # of a model that is not copied yet
        order.append((name, len(content)))
        write(name, content)

    monkeypatch.setattr(place, "_write", note)
    place.copy()
    place.copy()

    assert order == [("models/model.json", 1), ("study.yaml", 8), ("outcomes.jsonl", 4), ("outcomes.jsonl", 8)]


@pytest.mark.parametrize(("here", "kept"), [("one\ntwo\n", "one\ntwo\n"), ("one", "one\n"), ("other\nmore\n", "one\n")])
def test_the_folder_goes_on_if_the_storage_has_only_its_beginning(url: str, here: str, kept: str) -> None:
    with study_at(url, new=True) as folder:
        begin(folder)
    (folder / "outcomes.jsonl").write_text(here)
    with study_at(url, writes=False) as again:
        assert (again / "outcomes.jsonl").read_text() == kept


def test_a_study_has_one_driver_until_that_is_gone_for_a_while(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with study_at(url, new=True) as folder:
        begin(folder)
    with study_at(url):
        with pytest.raises(InputError, match=r"study: a search on .* writes here"), study_at(url):
            pass
        monkeypatch.setattr(mirror, "LEASE_SECONDS", -1.0)
        with study_at(url):
            pass


@pytest.mark.parametrize(
    ("place", "new", "what"),
    [
        ("{url}", False, "no study; allowed: a place written by"),
        ("ftp://there/study", True, "no such storage: .*; allowed: s3://BUCKET/PATH, gs://BUCKET/PATH, or a folder"),
    ],
)
def test_a_place_without_a_study_is_refused(url: str, place: str, new: bool, what: str) -> None:
    with pytest.raises(InputError, match=what), study_at(place.format(url=url), new=new):
        pass


def test_a_study_that_is_there_is_not_written_over(url: str) -> None:
    with study_at(url, new=True) as folder:
        begin(folder)
    what = "exists already; allowed: a new place, or `autoprune resume`"
    with pytest.raises(InputError, match=what), study_at(url, new=True):
        pass


def refusing(times: int, write: Callable[[str, bytes], None]) -> Callable[[Mirror, str, bytes], None]:
    left = [times]

    def refuse(_mirror: Mirror, name: str, content: bytes) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError("slow down")
        write(name, content)

    return refuse


def test_a_storage_that_refuses_for_a_while_gets_it_all_in_the_end(
    storage: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "COPY_SECONDS", 0.01)
    with study_at(url, new=True) as folder:
        monkeypatch.setattr(Mirror, "_write", refusing(5, Mirror(url)._write))
        begin(folder)

    assert (storage / "study" / "outcomes.jsonl").read_text() == "one\n"


def run_while_refused(url: str, patch: pytest.MonkeyPatch) -> None:
    with study_at(url, new=True) as folder:
        patch.setattr(Mirror, "_write", refusing(10**9, Mirror(url)._write))
        begin(folder)


def test_a_storage_that_goes_on_refusing_costs_nothing_of_the_folder(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "PATIENCE_SECONDS", 0.0)
    home = Mirror(url).folder
    with monkeypatch.context() as patch, pytest.raises(StudyError, match=r"cannot be written: slow down; .* whole in"):
        run_while_refused(url, patch)

    assert (home / "outcomes.jsonl").read_text() == "one\n"


def test_a_study_that_could_not_be_copied_goes_on_and_is_not_begun_again(storage: Path, url: str) -> None:
    begin(Mirror(url).folder)
    what = r"study: its study is in .*; allowed: `autoprune resume`"
    with pytest.raises(InputError, match=what), study_at(url, new=True):
        pass
    with study_at(url):
        pass

    assert (storage / "study" / "outcomes.jsonl").read_text() == "one\n"


def test_a_search_elsewhere_is_read_and_gone_on_with_from_there(
    storage: Path, url: str, tmp_path: Path, capsys: Capture
) -> None:
    """As from another machine: the folder that stood for it is not there any more."""
    space = write_space(tmp_path / "s.yaml", budget={"trials": 4})
    search(space, out=url, in_process=True)
    assert "exists already" in fails(capsys, "search", space, "--out", url)
    Path(tmp_path / "home").rename(tmp_path / "lost")
    assert '"completed": 4' in works(capsys, "status", url, "--json")
    works(capsys, "report", url)
    assert (storage / "study" / "report.html").is_file()
    works(capsys, "export", url, "--max-flops", "0.9", "--to", str(tmp_path / "export"))
    Path(tmp_path / "home").rename(tmp_path / "lost again")
    study = resume(url, trials=6, in_process=True)

    assert len(study.outcomes) == len(load_study(storage / "study").outcomes) == 6
