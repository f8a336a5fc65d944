"""Mirror: a study on object storage (`s3://bucket/path`, `gs://...`), as a folder here that is copied there.

Object storage knows no appending and no renaming, which logs that survive a crash need. So a search writes into a
folder of this machine, and a thread copies what has changed: models and checkpoints first, then the logs as they were
before, so that whatever a copied log speaks of is there. If driver and machine are lost, what ended in the last second
or two runs again. On the same machine nothing is lost: its folder goes on if the storage has only the beginning of it.

One driver at a time holds a study by a lease, an object that it renews; times are compared by the storage's clock.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from autoprune.errors import InputError, StudyError, first_line
from autoprune.files import is_url, new_folder
from autoprune.study.folder import StudyFolder

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

#: A lease is renewed so often, and is over when it has not been renewed for so long.
RENEW_SECONDS, LEASE_SECONDS = 10.0, 60.0

#: Seconds between two looks at what has changed, and for how long the last copy is tried.
COPY_SECONDS, FOLLOW_SECONDS, PATIENCE_SECONDS = 1.0, 5.0, 300.0

_LEASE, _PROBE = "driver.lease", "driver.probe"


@contextmanager
def study_at(place: str | Path, *, new: bool = False, writes: bool = True, follow: bool = False) -> Iterator[Path]:
    """The folder of a study while it is worked on: itself, or the folder that stands for a URL.

    Args:
        new: there must be no study yet.
        writes: the study changes, and nobody else may change it meanwhile.
        follow: what others write is brought here again and again.

    Raises:
        InputError: the storage cannot be used, the study is there or is missing, or somebody else holds it.
        StudyError: at the end it could not be copied; the folder is whole.
    """
    if not is_url(place):
        yield Path(place)
        return
    mirror = Mirror(str(place))
    if not writes:
        mirror.fetch()
        with _repeated(mirror.fetch_logs, FOLLOW_SECONDS) if follow else nullcontext():
            yield mirror.folder
        return
    with mirror.held():
        if new:
            mirror.check_new()
        else:
            mirror.fetch()
        with mirror.copied():
            yield mirror.folder


class Mirror:
    """A place on object storage and the folder of this machine that stands for it.

    Args:
        url: `s3://bucket/path` with options of pyarrow's as its query (`?region=...&endpoint_override=...`).

    Raises:
        InputError: pyarrow knows no such storage.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.files, self.base = _open(url)
        digest = hashlib.sha256(url.encode()).hexdigest()[:8]
        self.folder = Path("~/.cache/autoprune/studies").expanduser() / f"{Path(self.base).name}-{digest}"
        self._copied: dict[str, tuple[int, int]] = {}  # what lies there, by name: size and time or hash

    def check_new(self) -> None:
        """Raise `InputError` if there is a study, here or there."""
        if self._there(StudyFolder(Path()).config.name):
            allowed = "a new place, or `autoprune resume` for a study"
            raise InputError("exists already", where=self.url, allowed=allowed)
        if StudyFolder(self.folder).config.exists():
            allowed = "`autoprune resume`, which copies it there, or remove that folder"
            raise InputError(f"its study is in {self.folder}", where=self.url, allowed=allowed)

    def fetch(self) -> None:
        """Bring the study here, unless the folder is the same study and further on.

        Raises:
            InputError: there is none.
        """
        from pyarrow import fs

        if not self._there(StudyFolder(Path()).config.name):
            if StudyFolder(self.folder).config.exists():
                return  # it could not be copied there
            raise InputError("no study", where=self.url, allowed="a place written by `autoprune search --out`")
        with _storage(self.url):
            there = self.files.get_file_info(fs.FileSelector(self.base, recursive=True))
        names = [info.path.removeprefix(f"{self.base}/") for info in there if info.is_file]
        self._copied = dict.fromkeys(set(names) - {_LEASE, _PROBE}, (-1, -1))
        if self._is_ahead():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        with new_folder(self.folder) as beside, _storage(self.url):
            fs.copy_files(self.base, str(beside), source_filesystem=self.files)
            (beside / _LEASE).unlink(missing_ok=True)
        self._copied |= _files(self.folder)

    def fetch_logs(self) -> None:
        """Bring the files that tell how far the study is, and nothing else."""
        for name in self._logs():
            content = self._read(name)
            if content is not None:
                (self.folder / name).write_bytes(content)

    def copy(self) -> None:
        """Copy what has changed since the last time; raises `OSError` if the storage does not take it."""
        logs = {name: path.read_bytes() for name in self._logs() if (path := self.folder / name).exists()}
        known = _files(self.folder)
        for name, version in known.items():
            if name not in logs and self._copied.get(name) != version:
                self._write(name, (self.folder / name).read_bytes())
                self._copied[name] = version
        for name, content in logs.items():
            version = len(content), hash(content)
            if self._copied.get(name) != version:
                self._write(name, content)
                self._copied[name] = version
        for name in self._copied.keys() - known.keys() - logs.keys():
            self.files.delete_file(f"{self.base}/{name}")
            del self._copied[name]

    @contextmanager
    def copied(self) -> Iterator[None]:
        """Within it what changes is copied again and again, and once more in the end.

        Raises:
            StudyError: that last copy has failed for a long time.
        """
        try:
            with _repeated(self.copy, COPY_SECONDS):
                yield
        finally:
            until = time.monotonic() + PATIENCE_SECONDS
            while (reason := self._try_to_copy()) is not None:
                if time.monotonic() > until:
                    what = f"cannot be written: {reason}; the study is whole in {self.folder}"
                    raise StudyError(what, where=self.url)
                time.sleep(COPY_SECONDS)

    def _try_to_copy(self) -> str | None:
        try:
            self.copy()
        except OSError as error:
            return first_line(error)
        return None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the study: whoever else wants to is refused until the block ends, or this process is gone for a while.

        Raises:
            InputError: somebody holds it.
        """
        token = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)}".encode()
        with _storage(self.url):
            holder, age = self._read(_LEASE), self._age_of_lease()
            if holder is not None and age < LEASE_SECONDS:
                raise self._refusal(holder)
            self._write(_LEASE, token)
            if (holder := self._read(_LEASE)) != token:  # who came at the same moment was a little later
                raise self._refusal(holder or b"")
        try:
            with _repeated(lambda: self._write(_LEASE, token), RENEW_SECONDS):
                yield
        finally:
            with suppress(OSError):  # it ends by itself
                self.files.delete_file(f"{self.base}/{_LEASE}")

    def _refusal(self, holder: bytes) -> InputError:
        who = holder.decode(errors="replace").split(" ")[0]
        what = f"a search on {who} writes here, or was killed less than {LEASE_SECONDS:g} s ago"
        return InputError(what, where=self.url)

    def _age_of_lease(self) -> float:
        """Seconds since it was renewed, by the clock of the storage."""
        lease = self.files.get_file_info(f"{self.base}/{_LEASE}")
        if lease.mtime is None:
            return 0.0
        self._write(_PROBE, b"")
        now = self.files.get_file_info(f"{self.base}/{_PROBE}").mtime
        self.files.delete_file(f"{self.base}/{_PROBE}")
        return float((now - lease.mtime).total_seconds())

    def _is_ahead(self) -> bool:
        """Whether the folder holds all that the storage has of the logs."""
        for name in self._logs()[:-1]:
            here, there = self.folder / name, self._read(name)
            if there is not None and not (here.exists() and here.read_bytes().startswith(there)):
                return False
        return True

    def _logs(self) -> list[str]:
        """Names of the files that grow together, the last one for those who watch alone."""
        study = StudyFolder(self.folder)
        logs = (study.config, study.proposals, study.paused, study.outcomes, study.finalists, study.progress)
        return [path.name for path in logs]

    def _there(self, name: str) -> bool:
        with _storage(self.url):
            return bool(self.files.get_file_info(f"{self.base}/{name}").is_file)

    def _read(self, name: str) -> bytes | None:
        try:
            with self.files.open_input_stream(f"{self.base}/{name}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def _write(self, name: str, content: bytes) -> None:
        if "/" in name or not self.files.get_file_info(self.base).type.value:
            self.files.create_dir(f"{self.base}/{name}".rpartition("/")[0], recursive=True)
        with self.files.open_output_stream(f"{self.base}/{name}") as stream:
            stream.write(content)


def _open(url: str) -> tuple[FileSystem, str]:
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    try:
        files, base = FileSystem.from_uri(url)
    except (ArrowException, OSError, ValueError) as error:
        allowed = "s3://BUCKET/PATH, gs://BUCKET/PATH, or a folder"
        raise InputError(f"no such storage: {first_line(error)}", where=url, allowed=allowed) from None
    return files, base.rstrip("/")


@contextmanager
def _storage(url: str) -> Iterator[None]:
    """What goes wrong with the storage in the block is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise InputError(f"the storage cannot be used: {first_line(error)}", where=url) from None


def _files(folder: Path) -> Mapping[str, tuple[int, int]]:
    """Name -> size and time of the files of a study; what is half written, or only a cache, is left out."""
    found = {}
    shared = StudyFolder(folder).shared
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and shared not in path.parents and not any(part.startswith(".") for part in parts):
            state = path.stat()
            found["/".join(parts)] = state.st_size, state.st_mtime_ns
    return found


@contextmanager
def _repeated(action: Callable[[], None], seconds: float) -> Iterator[None]:
    """Within it a thread does so again and again; what the storage refuses is tried again."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            try:
                action()
            except OSError:
                continue

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
