"""What a report says, the words that its script writes included: what they are made of lies packed in the page."""

from __future__ import annotations

import re
from pathlib import Path

from autoprune.analysis.report.packing import unpacked


def text_of(report: Path) -> str:
    """The page and, behind it, its data as JSON."""
    page = report.read_text(encoding="utf-8")
    packed = re.search(r'<script[^>]*id="data"[^>]*>([^<]*)</script>', page)
    assert packed is not None
    return page + unpacked(packed[1])
