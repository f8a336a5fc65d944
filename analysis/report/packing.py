"""Text inside a page at a third of its size: compressed, and in letters that HTML leaves alone."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

#: Beyond this level the page is hardly smaller and takes twice as long.
_LEVEL = 5

_GZIP = 31  # the window of zlib's greatest size, in gzip's format, which browsers unpack by themselves


#: plotly.js for figures with two axes, as its authors publish it on npm (plotly.js-cartesian-dist-min, MIT): a third of
#: the whole library, which takes browsers seconds to start. To renew it: `npm pack
#: plotly.js-cartesian-dist-min@VERSION` with the version of `plotly.offline.get_plotlyjs_version()`, then `gzip -9 -n`.
PLOTLY = Path(__file__).parent / "templates" / "plotly-cartesian.min.js.gz"


def packed_plotly() -> str:
    """The script that draws, as `packed` gives it."""
    return base64.b64encode(PLOTLY.read_bytes()).decode("ascii")


def packed(text: str) -> str:
    """The text, gzipped, as base64."""
    squeeze = zlib.compressobj(_LEVEL, wbits=_GZIP)
    return base64.b64encode(squeeze.compress(text.encode()) + squeeze.flush()).decode("ascii")


def unpacked(text: str) -> str:
    """The inverse of `packed`."""
    return zlib.decompress(base64.b64decode(text), wbits=_GZIP).decode()
