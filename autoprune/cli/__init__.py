"""The command line: what the words mean (`parser`), what each command does, and what is shown while a search runs.

Every public function of the command files takes the arguments that `parser.py` parsed. Heavy imports are inside the
functions: wrong options and commands that only read a study do not wait for torch.
"""

from __future__ import annotations

from autoprune.cli.parser import main

__all__ = ["main"]
