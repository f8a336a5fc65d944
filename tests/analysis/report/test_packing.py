"""Text that a page holds compressed."""

from __future__ import annotations

import gzip
from base64 import b64decode

from autoprune.analysis.report.packing import packed, unpacked


def test_it_comes_back_and_is_gzip_in_letters_that_html_leaves_alone() -> None:
    text = "</script> é " * 99
    small = packed(text)

    assert unpacked(small) == gzip.decompress(b64decode(small)).decode() == text
    assert len(small) < len(text) / 5
    assert small.replace("+", "").replace("/", "").rstrip("=").isalnum()
