"""YAML as space files mean it."""

import pytest
import yaml

from autoprune.errors import InputError
from autoprune.study.yaml_text import parse_yaml, read_yaml


def test_exponents_without_a_point_are_numbers():
    assert parse_yaml("{a: 1e-4, b: 2E3, c: 1.5e+2, d: e5}", "x") == {"a": 1e-4, "b": 2000.0, "c": 150.0, "d": "e5"}


def test_a_key_stands_once_in_a_mapping_and_the_line_is_named():
    with pytest.raises(InputError, match=r"x:2: not YAML: key 'a' appears twice"):
        parse_yaml("a: 1\na: 2\n", "x")
    assert parse_yaml("{a: {b: 1}, b: 2}", "x") == {"a": {"b": 1}, "b": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [*x]", "x: an alias stands for a value that holds it; allowed: aliases of others"),
        ("a: &x {b: {c: *x}}", "an alias stands for a value that holds it"),
        ("[" * 5000, "x: nested too deeply"),
        ("{a: 1}: 2", "x:1: not YAML: a key holds other values"),
        ("a: 2026-02-31", "x: not YAML: day is out of range for month"),
        ("a: !!python/name:os.system", "x:1: not YAML: could not determine a constructor"),
    ],
)
def test_what_is_no_plain_data(text, message):
    with pytest.raises(InputError, match=message):
        parse_yaml(text, "x")


def test_aliases_of_aliases_do_not_fill_the_memory():
    lines = ["a0: &a0 [1, 2]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))]

    with pytest.raises(InputError, match="aliases stand for more than 1,000,000 values"):
        parse_yaml("\n".join(lines), "x")


def test_a_value_may_stand_in_several_places():
    assert parse_yaml("a: &x [1]\nb: [*x, *x]", "x") == {"a": [1], "b": [[1], [1]]}


def test_what_was_dumped_is_read_as_it_was():
    plain = {"name": "1e-4", "number": 1e-4}

    assert parse_yaml(yaml.safe_dump(plain), "x", as_written=True) == plain


def test_a_file_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"a: \xff")

    with pytest.raises(InputError, match=r"a\.yaml: not UTF-8: invalid start byte at byte 3"):
        read_yaml(tmp_path / "a.yaml")
    with pytest.raises(InputError, match=r"b\.yaml: cannot be read: No such file"):
        read_yaml(tmp_path / "b.yaml")
