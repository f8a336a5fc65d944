"""Programs that model cards show, run as a reader would: copied into a file, in an interpreter of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def programs_of(card: str) -> dict[str, str]:
    """Whole programs by what they import first after NumPy: `onnxruntime`, `torch`, `autoprune`."""
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    imported = [re.findall(r"^import (onnxruntime|torch|autoprune)", block, re.MULTILINE)[0] for block in blocks]
    return dict(zip(imported, blocks, strict=True))


def run_program(code: str, folder: Path, **replaced: str) -> list[str]:
    """The lines that a program prints which lies in `folder`; a variable that is `replaced` is set to other code."""
    for name, value in replaced.items():
        zeros = rf"^{name} = (np|torch)\.zeros.*$"
        code, count = re.subn(zeros, f"{name} = {value}", code, flags=re.MULTILINE)
        assert count == 1, f"{name} is not set once to zeros"
    (folder / "reader.py").write_text(code)
    command = [sys.executable, "-I", "reader.py"]  # alone: what is not installed is not found
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    (folder / "reader.py").unlink()

    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
