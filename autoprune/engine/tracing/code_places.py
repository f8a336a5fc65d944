"""Which line of a model's own code an error comes from, in words for the one who wrote it."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))


def place_in_code(error: BaseException, length: int = 80) -> str | None:
    """`blocks.py:81: assert x.shape[1] == self.channels`, cut to `length`: the innermost line that is not torch's.

    None if there is none: a model may be built of torch's own modules alone.
    """
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_LIBRARIES)]
    if not own:
        return None
    line = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
    return (f"{line}: {own[-1].line}" if own[-1].line else line)[:length]
