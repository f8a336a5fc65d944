"""Errors say what, where and what is allowed, in one line, and come whole through Ray."""

import pickle

import pytest

from autoprune.errors import AutopruneError, InputError, TargetError, check_name, first_line


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
    assert first_line(ValueError("abcdefg"), length=5) == "abcde"
    assert first_line(ValueError()) == "ValueError"
