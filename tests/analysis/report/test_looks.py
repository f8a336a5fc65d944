"""Methods look the same everywhere, and apart from each other for every kind of eye."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from autoprune import methods
from autoprune.analysis.report import looks

#: What a full lack of one kind of cones does to linear red, green and blue (Viénot, Brettel and Mollon 1999; for the
#: third kind, Brettel's plane as simplified by Machado 2009).
LACKING = {
    "none": np.eye(3),
    "red": np.array([[0.1121, 0.8853, -0.0005], [0.1127, 0.8897, -0.0001], [0.0045, 0.0001, 1.0019]]),
    "green": np.array([[0.2920, 0.7054, -0.0003], [0.2934, 0.7089, 0.0000], [-0.0210, 0.0256, 1.0019]]),
    "blue": np.array([[1.0143, 0.1496, -0.1648], [-0.0097, 0.8793, 0.1304], [0.0315, 0.6956, 0.2731]]),
}


def linear(colour: str) -> np.ndarray:
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB, white D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    scaled = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("lacking", LACKING)
def test_colours_stay_apart(lacking: str) -> None:
    seen = [lab(LACKING[lacking] @ linear(colour)) for colour in looks.COLOURS]

    # 2.3 is what an eye just tells apart; twice five times that is told apart in small marks.
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 11


def test_every_method_has_a_look_of_its_own_that_others_do_not_change() -> None:
    names = [name for name in methods.names() if name not in looks.ALWAYS]
    together = looks.method_looks(names)

    assert set(names) == set(looks.ORDER)
    assert len({together[name] for name in names}) == len(names)
    assert all(looks.method_looks([name])[name] == together[name] for name in names)


def test_methods_of_other_packages_differ_too() -> None:
    many = [f"mine{number}" for number in range(14)]
    found = looks.method_looks([*many, "l1", "dense", "random"])

    assert len({found[name] for name in [*many, "l1"]}) == 15
    assert found["l1"] == looks.method_looks(["l1"])["l1"]
    assert found["dense"] == found["random"]
