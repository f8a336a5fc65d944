"""Contexts around Ray: its token, its folder, its chatter, and signals."""

import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from autoprune.search.on_ray.quiet import guarded_by_token, quiet_terminal, scratch_folder, signals_interrupt


def test_a_local_ray_is_guarded_by_a_token_for_a_while(monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    tokens = []
    for _ in range(2):
        with guarded_by_token():
            tokens.append(os.environ["RAY_AUTH_TOKEN"])

    assert len(tokens[0]) == 64
    assert tokens[0] == tokens[1]
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_the_guard_of_a_local_ray_is_forgotten_with_it(monkeypatch):
    """As Ray itself switches it on; a process that remembers it lets in no worker of a cluster without tokens."""
    setup = pytest.importorskip("ray._private.authentication.authentication_token_setup")
    utils = pytest.importorskip("ray._private.authentication.authentication_utils")
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with guarded_by_token():
        setup.enable_token_auth_by_default()
        assert utils.is_token_auth_enabled()

    assert not utils.is_token_auth_enabled()


def test_a_token_of_the_user_stays(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "mine")
    with guarded_by_token():
        assert "RAY_AUTH_TOKEN" not in os.environ

    assert os.environ["RAY_AUTH_TOKEN_PATH"] == "mine"


def test_the_scratch_folder_has_a_short_path_and_goes(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("long" * 20)))
    with scratch_folder() as folder:
        assert folder.parent == Path("/tmp")
        (folder / "file").write_text("")

    assert not folder.exists()


def say(text):
    sys.stdout.write(f"{text}\n")


def test_only_threads_of_ray_are_silent(capsys):
    with quiet_terminal():
        for name in ("ray_print_logs", "other"):
            thread = threading.Thread(target=say, args=(name,), name=name)
            thread.start()
            thread.join()
        say("main")
    say("after")

    assert capsys.readouterr().out == "other\nmain\nafter\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_interrupts_the_second_one_is_as_usual(number):
    seen = []
    before = signal.signal(number, lambda *_: seen.append(number))
    try:
        dispatcher = SimpleNamespace(interrupted=False)
        with signals_interrupt(dispatcher):
            os.kill(os.getpid(), number)
            assert dispatcher.interrupted
            assert seen == []
            os.kill(os.getpid(), number)
        assert seen == [number]
    finally:
        signal.signal(number, before)
