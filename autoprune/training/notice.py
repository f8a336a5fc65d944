"""Notice: this process is about to be taken away, so the training that runs in it pauses at its next step.

A signal comes to the process as a whole, and so this is the process's own: whoever handles the signal gives notice.
"""

from __future__ import annotations


class PausedByNoticeError(BaseException):
    """The training has saved its state, and ends here. It is no failure, so nothing that handles failures sees it."""


class Notice:
    """Whether this process is about to be taken away."""

    def __init__(self) -> None:
        self.given = False


#: That of this process.
NOTICE = Notice()
