"""What a process needs to run a segment, fetched from the study actor: nothing but bytes travels between nodes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoprune.files import fill
from autoprune.search.on_ray.study_actor import ask_patiently
from autoprune.search.running.segments import TrialSegment


@contextmanager
def segment_files(study_actor: Any, segment: TrialSegment) -> Iterator[tuple[Path, Path | None]]:
    """A folder with what the trial goes on from, if it paused before, and one with the model of its parent, if any."""
    with tempfile.TemporaryDirectory(prefix="autoprune-trial-") as folder:
        scratch, parent = Path(folder) / "trial", None
        scratch.mkdir()
        if segment.resumed:
            fill(scratch, ask_patiently(lambda: study_actor.load_state.remote(segment.proposal.id)))
        if segment.parent is not None:
            parent = Path(folder) / "parent"
            parent.mkdir()
            fill(parent, ask_patiently(lambda: study_actor.load_model.remote(segment.parent)))
        yield scratch, parent
