"""Errors say what, where and what is allowed, in one line, and come whole through Ray."""

import pickle
import re

import pytest

from autoprune.errors import LINE, AutopruneError, InputError, TargetError, brief_repr, check_name, first_line


def test_the_parts_of_an_error_make_one_line() -> None:
    error = InputError("7 is out\nof range", where="space.seed", allowed="0 to 3")

    assert str(error) == "space.seed: 7 is out of range; allowed: 0 to 3"
    assert str(AutopruneError("alone")) == "alone"


def test_an_error_is_the_same_after_it_was_sent() -> None:
    sent = pickle.loads(pickle.dumps(TargetError("what", where="here", allowed="that")))

    assert type(sent) is TargetError
    assert (sent.what, sent.where, sent.allowed, sent.exit_code) == ("what", "here", "that", 2)


def test_a_near_name_is_proposed_and_a_far_one_is_not() -> None:
    assert check_name("taylor", ("l1", "taylor"), kind="method") == "taylor"
    with pytest.raises(
        InputError, match=r"^method: unknown method 'tailor' \(did you mean 'taylor'\?\); allowed: l1, t"
    ):
        check_name("tailor", ("taylor", "l1"), kind="method", where="method")
    with pytest.raises(InputError, match=r"^unknown method 'zzz'; allowed: l1$"):
        check_name("zzz", ("l1",), kind="method")


def test_a_foreign_error_gives_its_first_line_or_its_type() -> None:
    assert first_line(ValueError("\n a size of 13\nand more")) == "a size of 13"
    assert first_line(ValueError("abcdefg"), length=5) == "abcd…"
    assert first_line(ValueError()) == "ValueError"


def test_a_line_of_a_terminal_keeps_what_where_and_what_is_allowed() -> None:
    short = InputError("7 is out of range", where="space.seed", allowed="0 to 3")
    long = InputError("w" * 400, where="/a/long/path/" + "x" * 200 + "/mine.yaml", allowed="a, b, " + "c" * 300)
    what, allowed = InputError("w" * 400).line(), InputError("bad", where="here", allowed="a, " + "c" * 400).line()

    assert short.line() == str(short)
    assert len(long.line()) == len(what) == len(allowed) == LINE
    assert re.fullmatch(r"….*/mine\.yaml: w+…; allowed: a, b, c+…", long.line())
    assert allowed.startswith("here: bad; allowed: a, ccc")
    assert len(long.line(200)) <= 200


def test_colours_of_a_terminal_are_left_out() -> None:
    assert str(InputError("\x1b[1mbold\x1b[0m\x07 text")) == "bold text"
    assert first_line(ValueError("\x1b[31mred\x1b[0m\nmore")) == "red"


def test_a_value_of_any_size_is_shown_in_brief() -> None:
    endless: list[object] = []
    endless.append(endless)

    assert brief_repr(endless) == "[[...]]"
    assert len(brief_repr("x" * 10**6)) == 80
