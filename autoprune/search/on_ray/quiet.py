"""Contexts for a Ray that prints nothing, leaves no files behind, and lets signals end a search in order."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from ray import _raylet
from ray._raylet import Config

if TYPE_CHECKING:
    from autoprune.search.running.dispatcher import Dispatcher


#: One token for the life of this process: Ray remembers the first one it saw.
_TOKEN = secrets.token_hex(32)


@contextmanager
def guarded_by_token() -> Iterator[None]:
    """Guard a local Ray by a token that no file holds; a Ray that is given none writes one into the home folder."""
    if {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        yield
        return
    os.environ["RAY_AUTH_TOKEN"] = _TOKEN  # with a token at hand Ray switches the guard on by itself
    try:
        yield
    finally:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            os.environ.pop(name, None)
        _forget_token()


def _forget_token() -> None:
    """Let this process join a cluster without tokens later on: Ray remembers mode and token beyond their variables."""
    Config.initialize("")
    if hasattr(_raylet, "AuthenticationTokenLoader"):  # since 2.52
        _raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for what Ray and Tune write, removed at the end. Ray's sockets lie in it, so its path must be short."""
    base = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="autoprune-", dir=base if len(base) < 24 else "/tmp"))  # noqa: S108
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # Ray's last processes may still be writing their logs


class _WithoutRay(io.TextIOBase):
    """A stream without what Ray's threads print, that of `RayExecutor` included: their names say so."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        return len(text) if threading.current_thread().name.startswith("ray_") else self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()

    @property
    def closed(self) -> bool:
        return self.stream.closed

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()


@contextmanager
def quiet_terminal() -> Iterator[None]:
    """Keep Ray's chatter about dead workers off the terminal; they become outcomes, with their error."""
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(_WithoutRay(sys.stdout)):
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def signals_interrupt(dispatcher: Dispatcher) -> Iterator[None]:
    """Ctrl-C and SIGTERM end what the dispatcher runs; a second one ends the process as usual."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        dispatcher.interrupted = True
        restore()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        restore()
