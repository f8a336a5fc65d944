"""Text inside a page at a third of its size: compressed, and in letters that HTML leaves alone."""

from __future__ import annotations

import base64
import zlib

#: Beyond this level the page is hardly smaller and takes twice as long.
_LEVEL = 5

_GZIP = 31  # the window of zlib's greatest size, in gzip's format, which browsers unpack by themselves


def packed(text: str) -> str:
    """The text, gzipped, as base64."""
    squeeze = zlib.compressobj(_LEVEL, wbits=_GZIP)
    return base64.b64encode(squeeze.compress(text.encode()) + squeeze.flush()).decode("ascii")


def unpacked(text: str) -> str:
    """The inverse of `packed`."""
    return zlib.decompress(base64.b64decode(text), wbits=_GZIP).decode()
