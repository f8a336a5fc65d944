"""YAML as space files mean it."""

import pytest

from autoprune.errors import InputError
from autoprune.study.yaml_text import parse_yaml


def test_exponents_without_a_point_are_numbers():
    assert parse_yaml("{a: 1e-4, b: 2E3, c: 1.5e+2, d: e5}", "x") == {"a": 1e-4, "b": 2000.0, "c": 150.0, "d": "e5"}


def test_a_key_stands_once_in_a_mapping_and_the_line_is_named():
    with pytest.raises(InputError, match=r"x:2: not YAML: key 'a' appears twice"):
        parse_yaml("a: 1\na: 2\n", "x")
    assert parse_yaml("{a: {b: 1}, b: 2}", "x") == {"a": {"b": 1}, "b": 2}
