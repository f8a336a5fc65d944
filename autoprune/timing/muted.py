"""Torch's exporters without their talk."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def exporters_muted() -> Iterator[None]:
    """Hold back warnings and logs of torch's exporters: what fails raises besides, and is tried in another way."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
