"""Text that a page holds compressed."""

from __future__ import annotations

import gzip
from base64 import b64decode

from plotly.offline import get_plotlyjs_version

from autoprune.analysis.report.packing import PLOTLY, packed, packed_plotly, unpacked


def test_it_comes_back_and_is_gzip_in_letters_that_html_leaves_alone() -> None:
    text = "</script> é " * 99
    small = packed(text)

    assert unpacked(small) == gzip.decompress(b64decode(small)).decode() == text
    assert len(small) < len(text) / 5
    assert small.replace("+", "").replace("/", "").rstrip("=").isalnum()


def test_the_script_that_draws_fits_the_library_that_makes_the_figures() -> None:
    script = unpacked(packed_plotly())

    assert f"plotly.js (cartesian - minified) v{get_plotlyjs_version()}" in script[:200]
    assert "Licensed under the MIT license" in script[:200]
    assert PLOTLY.with_name("plotly-cartesian.LICENSE").read_text().startswith("MIT License")
