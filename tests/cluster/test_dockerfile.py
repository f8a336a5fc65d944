"""dockerfile: what it copies is all that an installation needs. Nothing here builds an image."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from autoprune.cli.launch_files import launch_files


def copied_sources(text: str) -> list[str]:
    lines = re.findall(r"^COPY --chown=\S+ (.*) /home/ray/source/\S*$", text, re.MULTILINE)
    return [source for line in lines for source in line.split()]


def test_every_instruction_is_docker_s() -> None:
    text = launch_files()["dockerfile"].fill({"base": "mine:1"})
    instructions = [line.split()[0] for line in text.splitlines() if line and not line.startswith("#")]

    assert instructions == ["FROM", *["COPY"] * 5, "RUN"]
    assert "\nFROM mine:1\n" in text


def test_a_wheel_is_built_from_what_is_copied_with_everything_in_it(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in copied_sources(launch_files()["dockerfile"].fill({})):
        if (root / name).is_dir():
            shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / name, source / name)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        tmp_path,
        source,
    ]
    subprocess.run(build, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    assert {"autoprune/cluster/onprem.sh", "autoprune/cluster/Dockerfile"} <= set(names)
    assert {"autoprune/search_spaces/digits_demo.yaml", "autoprune/cli/launch_files.py"} <= set(names)
    assert (source / "constraints.txt").exists()
